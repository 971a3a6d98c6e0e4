"""Serve the archives in the model store, keep every model answering, and make certificates and API
keys.
"""

from __future__ import annotations

import argparse
import sys

from handlers.settings import ENGINES, PRECISIONS
from serving import commands, credentials
from serving.commandline import add_server_options, guarded, names, run
from serving.config import Config
from serving.machine import DEVICES
from serving.plan import Options
from serving.runfolder import RunFolder

EPILOG = """\
Exit status: 0 if all is well, else 1, and the reason is printed.

If a model cannot be loaded, `serve` and `start` end within seconds and print the traceback of its
handler. Ctrl-C and SIGTERM end TorchServe with its workers and remove its temporary files.
"""


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.command in credentials.COMMANDS:
        return guarded(lambda: credentials.run(arguments))
    return run(lambda config, folder: _command(arguments, config, folder), arguments)


def _command(arguments: argparse.Namespace, config: Config, folder: RunFolder) -> int:
    match arguments.command:
        case "serve":
            options = Options(
                arguments.device,
                arguments.models,
                arguments.workers,
                arguments.precision,
                arguments.engine,
                arguments.gateway,
            )
            return commands.serve(config, folder, options)
        case "start":
            return commands.start(folder, sys.argv[2:])
        case "stop":
            return commands.stop(folder)
        case _:
            return commands.status(config, folder)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    add_server_options(common)
    device = argparse.ArgumentParser(add_help=False)
    device.add_argument(
        "--device", choices=DEVICES, default="auto",
        help="auto: the GPUs if there are any, else the CPU; gpu: an error without one; cpu",
    )  # fmt: skip
    models = argparse.ArgumentParser(add_help=False)
    models.add_argument(
        "--models", type=names, default=(), metavar="NAME,NAME",
        help="serve these only (default: load_models in the configuration, else every archive)",
    )  # fmt: skip
    models.add_argument(
        "--workers", type=_positive, metavar="N",
        help="workers of each model (default: as its archive says, and at least one per GPU)",
    )  # fmt: skip
    models.add_argument(
        "--precision", choices=PRECISIONS,
        help="of every model (default: as its archive says, which is auto unless changed)",
    )  # fmt: skip
    models.add_argument(
        "--engine", choices=ENGINES,
        help="of every model (default: as its archive says). auto: OpenVINO on a CPU if the export "
        "proved the network in it, else TorchScript",
    )  # fmt: skip
    models.add_argument(
        "--no-gateway", action="store_false", dest="gateway",
        help="let TorchServe itself listen on the public addresses, without any protection",
    )  # fmt: skip
    parser = argparse.ArgumentParser(
        prog="python -m serving",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="command", required=True, metavar="command")
    verbs.add_parser("serve", parents=[common, device, models], help="serve in the foreground")
    verbs.add_parser("start", parents=[common, device, models], help="serve in the background")
    verbs.add_parser("stop", parents=[common], help="stop the server of this run folder")
    verbs.add_parser("status", parents=[common], help="show whether each model is ready")
    credentials.add_commands(verbs)
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
