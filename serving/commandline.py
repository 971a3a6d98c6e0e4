"""What all commands that concern a server share: the options that name it, and how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from serving.config import Config
from serving.errors import ServingError
from serving.inference import bypass_proxy
from serving.runfolder import RunFolder


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--run-dir``, which name a server."""
    parser.add_argument(
        "--config", type=Path, default=Path("config.properties"), metavar="FILE",
        help="TorchServe's configuration (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--run-dir", type=Path, default=Path("run"), metavar="DIR",
        help="logs and state of the server (default: %(default)s)",
    )  # fmt: skip


def run(command: Callable[[Config, RunFolder], int], arguments: argparse.Namespace) -> int:
    """The exit status of ``command`` for the server of ``arguments``; prints its ServingError."""

    def prepared() -> int:
        config = Config.read(arguments.config)
        bypass_proxy(config)
        return command(config, RunFolder(arguments.run_dir))

    return guarded(prepared)


def names(text: str) -> tuple[str, ...]:
    """The names in ``text``, which commas separate; an argparse type."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def guarded(command: Callable[[], int]) -> int:
    """The exit status of ``command``; prints its ServingError."""
    try:
        return command()
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
