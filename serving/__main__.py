"""Serve the archives in the model store with TorchServe, and tell the truth about it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from handlers.settings import PRECISIONS
from serving import commands
from serving.config import Config
from serving.errors import ServingError
from serving.gpus import DEVICES
from serving.runfolder import RunFolder

EPILOG = """\
Exit status: 0 all is well, 1 it is not and the reason is printed.

A model that cannot load ends `serve` and `start` with its handler's traceback in seconds. Ctrl-C
and SIGTERM end TorchServe, its workers and its temporary files.
"""


def main() -> int:
    arguments = _parser().parse_args()
    run = RunFolder(arguments.run_dir)
    try:
        config = Config.read(arguments.config)
        match arguments.command:
            case "serve":
                return commands.serve(
                    config, run, arguments.device, arguments.workers, arguments.precision
                )
            case "start":
                return commands.start(run, sys.argv[2:])
            case "stop":
                return commands.stop(run)
            case _:
                return commands.status(config, run)
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, default=Path("config.properties"), metavar="FILE",
        help="TorchServe's configuration (default: config.properties)",
    )  # fmt: skip
    common.add_argument(
        "--run-dir", type=Path, default=Path("run"), metavar="DIR",
        help="logs and state of the server (default: run)",
    )  # fmt: skip
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument(
        "--device", choices=DEVICES, default="auto",
        help="auto: GPUs where there are, else the CPU; gpu: an error without one; cpu: the CPU",
    )  # fmt: skip
    workers = argparse.ArgumentParser(add_help=False)
    workers.add_argument(
        "--workers", type=_positive, metavar="N",
        help="workers of each model (default: one per GPU, at least what its YAML says)",
    )  # fmt: skip
    workers.add_argument(
        "--precision", choices=PRECISIONS,
        help="of every model, whatever its YAML says (default: as that says, and it says auto)",
    )  # fmt: skip
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="command", required=True, metavar="command")
    verbs.add_parser("serve", parents=[common, device, workers], help="in the foreground")
    verbs.add_parser("start", parents=[common, device, workers], help="in the background")
    verbs.add_parser("stop", parents=[common], help="the server of this run folder")
    verbs.add_parser("status", parents=[common], help="ask every model for a true answer")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
