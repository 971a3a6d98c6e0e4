"""Exports, serves and tries the whole bundle on a sample photograph: ``make demo``."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from export.errors import ExportError
from export.networks import find, registered
from export.weights import fetch
from serving import commandline
from serving.children import bound
from serving.config import Config
from serving.errors import ServingError
from serving.inference import connect
from serving.management import Management
from serving.runfolder import RunFolder
from tools import server
from vision_client import Client, VisionError
from vision_client.client import SERVER
from vision_client.show import bars, draw, side_by_side

# Chelsea the cat, by Stéfan van der Walt, CC0; from scikit-image.
SAMPLE = Path(__file__).with_name("sample.jpg")
PAGE_HOST, PAGE_PORT = "127.0.0.1", 7860
TIMEOUT_S = 120
INTERRUPTED = 130

UNTRAINED = """
  ****************************************************************************
  *  The published weights are not available here (see the reason above), so *
  *  the demo continues with UNTRAINED networks: everything works, but the   *
  *  answers mean nothing.                                                   *
  ****************************************************************************
"""


def demo(arguments: argparse.Namespace, config: Config, run: RunFolder) -> int:
    """Export, serve, predict; then serve, with the page, until Ctrl-C, or stop if `once`."""
    export(config.model_store, arguments.models)
    print(flush=True)
    options = ["--device", arguments.device, "--models", ",".join(arguments.models)]
    child = start([*commandline.server_options(arguments), *options])
    try:
        while not run.is_ready(child.pid):
            if child.poll() is not None:
                return child.returncode or 1
            time.sleep(0.1)
        models = showable(server.tasks(Management.of(run)))
        with connect(config, timeout=TIMEOUT_S) as client:
            show(client, models, run.path)
        print_next(config.local_inference, models)
        if arguments.once:
            return 0
        with page(config.local_inference) as address:
            print(f"\nserving until Ctrl-C; a page for your own photographs:  {address}")
            return child.wait()
    except KeyboardInterrupt:
        return INTERRUPTED if arguments.once else 0
    finally:
        end(child)


def start(options: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start `serve`, which ends if this process is killed.

    In a session of its own, Ctrl-C in the terminal reaches only this process, which passes it on.
    """
    return subprocess.Popen(
        bound([sys.executable, "-m", "serving", "serve", *options]), start_new_session=True
    )


def end(child: subprocess.Popen[bytes]) -> None:
    """End the server; a further Ctrl-C makes it drop the requests that it has accepted."""
    while child.poll() is None:
        child.send_signal(signal.SIGINT)
        with contextlib.suppress(KeyboardInterrupt):
            child.wait()


@contextlib.contextmanager
def page(url: str) -> Iterator[str]:
    """The address of `vision page` for the server at ``url``, on its usual port if that is free."""
    port = 0
    with contextlib.suppress(OSError), socket.create_server((PAGE_HOST, PAGE_PORT)):
        port = PAGE_PORT
    vision = str(Path(sys.executable).with_name("vision"))
    command = [vision, "page", "--no-open", "--server", url, "--port", str(port)]
    with subprocess.Popen(
        bound(command), stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        assert child.stdout is not None
        try:
            word, _, address = child.stdout.readline().partition(" ")
            if word != "page":
                raise ServingError("the page did not start; its message is above")
            yield address.strip()
        finally:
            child.terminate()


def showable(models: Mapping[str, str]) -> dict[str, str]:
    """``models`` without those of a task that the demo does not know, which are reported."""
    shown = {model: task for model, task in models.items() if task in ("classify", "translate")}
    for model, task in models.items():
        if model not in shown:
            print(f"skipping {model}: the demo does not know the task {task}")
    return shown


def export(model_store: Path, models: Sequence[str]) -> None:
    """Export ``models`` with the published weights, or untrained if they are not available.

    Without names: every network of the bundle.
    """
    try:
        networks = [find(model) for model in models or registered()]
    except ExportError as error:
        raise ServingError(str(error)) from error
    print("looking for the published weights", flush=True)
    weights = "pretrained"
    try:
        for network in networks:
            for checkpoint in [*network.checkpoints.values()][:1]:  # the one of `pretrained`
                fetch(checkpoint.download)
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        print(UNTRAINED, flush=True)
        weights = "random"
    options = ["--weights", weights, "--model-store", str(model_store)]
    command = [sys.executable, "-m", "export", *models, *options]
    if subprocess.run(command, check=False).returncode:
        raise ServingError("the export failed; its message is above")


def show(client: Client, models: Mapping[str, str], folder: Path) -> None:
    """Ask each model about the sample photograph; pictures are saved in ``folder``."""
    terminal = Console()
    try:
        for model, task in models.items():
            if task == "classify":
                print(f"\n{SAMPLE.parent.name}/{SAMPLE.name}: the classes according to {model}")
                predictions = client.classify(SAMPLE, model=model).predictions
                terminal.print(bars(predictions), soft_wrap=True)
            else:
                both = side_by_side(SAMPLE, client.translate(SAMPLE, model=model).image())
                path = folder / "before_after.png"
                both.save(path)
                print(f"\nbefore and after {model}: {path}")
                draw(both, terminal, os.environ)
    except VisionError as error:
        raise ServingError(f"wrong answer: {error}") from error


def print_next(url: str, models: Mapping[str, str]) -> None:
    """Print the commands to try next with the server at ``url``."""
    where = "" if url == SERVER else f" --server {url}"
    commands = []
    if "classify" in models.values():
        commands.append(
            (f".venv/bin/vision classify photo.jpg{where}", "folders, too: vision --help")
        )
    if "translate" in models.values():
        commands.append((f".venv/bin/vision translate photo.jpg -o translated{where}", ""))
    for model, task in models.items():
        output = "" if task == "classify" else " -o translated.png"
        commands.append((f"curl -T photo.jpg {url}/predictions/{model}{output}", ""))
    print("\ntry it on your own picture, from another terminal")
    for command, note in commands:
        print(f"  {command:<38}  {note}".rstrip())


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    parser = server.parser("tools.demo", __doc__)
    parser.add_argument("--device", type=commandline.device, default="auto")
    parser.add_argument(
        "--models", type=commandline.names, default=(), metavar="NAME,NAME",
        help="export and serve these only",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="stop after the predictions")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # as the child's is
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # SIGHUP is ignored under nohup
            signal.signal(number, _interrupt)
    return commandline.run(lambda config, run: demo(arguments, config, run), arguments)


if __name__ == "__main__":
    sys.exit(main())
