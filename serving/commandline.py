"""What all commands that concern a server share: the options that name it, and how they end."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NoReturn

from handlers.settings import ENGINES, PRECISIONS, SYNONYMS
from serving import runfolder
from serving.config import Config
from serving.errors import ServingError
from serving.inference import bypass_proxy
from serving.machine import DEVICES
from serving.runfolder import RunFolder

_PLACES = ("host", "port", "grpc_port", "metrics_port", "model_store")


class Parser(argparse.ArgumentParser):
    """A parser that answers a wrong command line with one sentence, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        sentence = re.sub(r"^argument (--[a-z-]+): ", r"\1 ", message)
        self.exit(2, f"error: {sentence}\n")


def choice(values: Collection[str], synonyms: Mapping[str, str]) -> Callable[[str], str]:
    """An argparse type: one of ``values``, in any case, or a synonym of one."""

    def parse(text: str) -> str:
        value = synonyms.get(text.lower(), text.lower())
        if value not in values:
            raise argparse.ArgumentTypeError(f"must be one of {', '.join(values)}, not {text!r}")
        return value

    return parse


device = choice(DEVICES, {"cuda": "gpu"})
precision = choice(PRECISIONS, SYNONYMS)
engine = choice(ENGINES, {})


def number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: a whole number from ``least`` to ``most``."""

    def parse(text: str) -> int:
        if re.fullmatch(r"\d+", text, re.ASCII) and least <= int(text) <= (most or int(text)):
            return int(text)
        limits = f"from {least} to {most}" if most else f"of {least} or more"
        raise argparse.ArgumentTypeError(f"must be a whole number {limits}, not {text!r}")

    return parse


def names(text: str) -> tuple[str, ...]:
    """An argparse type: the names in ``text``, which commas separate."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _setting(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not re.fullmatch(r"\w+", key, re.ASCII) or not equals or "\n" in value:
        raise argparse.ArgumentTypeError(f"must be a line of the configuration, not {text!r}")
    return key, value


def _host(text: str) -> str:
    host = text.removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[A-Za-z0-9.-]+|[0-9A-Fa-f:.]+", host):
        raise argparse.ArgumentTypeError(f"must be a name or an address alone, not {text!r}")
    return host


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a server: its configuration, its folder, and where it is."""
    parser.add_argument(
        "--config", type=Path, default=Path("config.properties"), metavar="FILE",
        help="TorchServe's configuration (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--run-dir", type=Path, default=runfolder.DEFAULT, metavar="DIR",
        help="logs and state of the server (default: %(default)s)",
    )  # fmt: skip
    places = parser.add_argument_group("instead of what the configuration says")
    places.add_argument("--host", type=_host, metavar="NAME", help="where predictions are answered")
    for name, what in (("port", "REST"), ("grpc-port", "gRPC"), ("metrics-port", "metrics")):
        places.add_argument(
            f"--{name}", type=number(1, 65535), metavar="N", help=f"the port of {what}"
        )
    places.add_argument("--model-store", type=Path, metavar="DIR", help="folder of the archives")
    places.add_argument(
        "--set", type=_setting, action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="any other line of the configuration, as drain_seconds=10; may be repeated",
    )  # fmt: skip


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is served and how."""
    parser.add_argument(
        "--device", type=device, default="auto", metavar="DEVICE",
        help="auto: the GPUs if there are any, else the CPU; gpu: an error without one; cpu",
    )  # fmt: skip
    parser.add_argument(
        "--models", type=names, default=(), metavar="NAME,NAME",
        help="serve these only (default: load_models in the configuration, else every archive)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=number(1), metavar="N",
        help="workers of each model (default: as its archive says, and at least one per GPU)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", type=precision, metavar="TYPE",
        help="of every model: auto, float32, bfloat16, float16 or int8 (default: as its archive "
        "says, which is auto unless changed)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", type=engine, metavar="ENGINE",
        help="of every model: auto, torchscript or openvino (default: as its archive says). auto: "
        "OpenVINO on a CPU if the export proved the network in it, else TorchScript",
    )  # fmt: skip


def server_options(arguments: argparse.Namespace) -> list[str]:
    """The command line that names the same server as ``arguments``."""
    given = {"config": arguments.config, "run-dir": arguments.run_dir, **_places(arguments)}
    named = [
        f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None
    ]
    return [*named, *(f"--set={key}={value}" for key, value in arguments.settings)]


def run(command: Callable[[Config, RunFolder], int], arguments: argparse.Namespace) -> int:
    """The exit status of ``command`` for the server of ``arguments``; prints its ServingError.

    ``command`` gets the configuration that ``arguments`` name.
    """

    def prepared() -> int:
        config = _asked(Config.read(arguments.config), arguments)
        bypass_proxy(config)
        return command(config, RunFolder(arguments.run_dir))

    return guarded(prepared)


def run_beside(command: Callable[[RunFolder], int], arguments: argparse.Namespace) -> int:
    """The same for a command that concerns a running server, which knows its configuration.

    ServingError if the server of the folder is not where ``arguments`` say.
    """

    def prepared() -> int:
        folder = RunFolder(arguments.run_dir)
        running = folder.config()
        config = running or Config.read(arguments.config)
        asked = _asked(config, arguments)
        bypass_proxy(config)
        if running and _server(asked) != _server(running):
            raise ServingError(
                f"the server of {folder.path} is {config.inference}, gRPC {config.grpc}, metrics "
                f"{config.metrics}, of {config.model_store}: RUN= names the folder of another"
            )
        return command(folder)

    return guarded(prepared)


def _server(config: Config) -> tuple[dict[str, tuple[str, int]], Path]:
    return config.addresses, config.model_store.resolve()


def _asked(config: Config, arguments: argparse.Namespace) -> Config:
    return config.override(dict(arguments.settings)).move(**_places(arguments))


def _places(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(arguments, name) for name in _PLACES}


def guarded(command: Callable[[], int]) -> int:
    """The exit status of ``command``; prints its ServingError."""
    try:
        return command()
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
