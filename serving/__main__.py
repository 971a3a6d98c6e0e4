"""Serve the archives in the model store, keep every model answering, and make certificates and API
keys.
"""

from __future__ import annotations

import argparse
import sys

from serving import commandline, commands, credentials
from serving.config import Config
from serving.plan import Options
from serving.runfolder import RunFolder

EPILOG = """\
Exit status: 0 if all is well, else 1 (2: a wrong option), and the reason is printed.

If a model cannot be loaded, `serve` and `start` end within seconds and print the traceback of its
handler. Ctrl-C and SIGTERM end TorchServe with its workers and remove its temporary files.
"""


def main() -> int:
    arguments = _parser().parse_args()
    match arguments.command:
        case "cert" | "key":
            return commandline.guarded(lambda: credentials.run(arguments))
        case "stop":
            return commandline.run_beside(commands.stop, arguments)
        case "status":
            return commandline.run_beside(
                lambda folder: commands.status(folder, as_json=arguments.json), arguments
            )
        case _:
            return commandline.run(
                lambda config, folder: _serve(arguments, config, folder), arguments
            )


def _serve(arguments: argparse.Namespace, config: Config, folder: RunFolder) -> int:
    if arguments.command == "start":
        return commands.start(folder, sys.argv[2:])
    options = Options(
        arguments.device,
        arguments.models,
        arguments.workers,
        arguments.precision,
        arguments.engine,
        arguments.gateway,
    )
    return commands.serve(config, folder, options, background=arguments.background)


def _parser() -> commandline.Parser:
    common = commandline.Parser(add_help=False)
    commandline.add_server_options(common)
    device = commandline.Parser(add_help=False)
    device.add_argument(
        "--device", type=commandline.device, default="auto", metavar="DEVICE",
        help="auto: the GPUs if there are any, else the CPU; gpu: an error without one; cpu",
    )  # fmt: skip
    models = commandline.Parser(add_help=False)
    models.add_argument(
        "--models", type=commandline.names, default=(), metavar="NAME,NAME",
        help="serve these only (default: load_models in the configuration, else every archive)",
    )  # fmt: skip
    models.add_argument(
        "--workers", type=commandline.number(1), metavar="N",
        help="workers of each model (default: as its archive says, and at least one per GPU)",
    )  # fmt: skip
    models.add_argument(
        "--precision", type=commandline.precision, metavar="TYPE",
        help="of every model: auto, float32, bfloat16, float16 or int8 (default: as its archive "
        "says, which is auto unless changed)",
    )  # fmt: skip
    models.add_argument(
        "--engine", type=commandline.engine, metavar="ENGINE",
        help="of every model: auto, torchscript or openvino (default: as its archive says). auto: "
        "OpenVINO on a CPU if the export proved the network in it, else TorchScript",
    )  # fmt: skip
    models.add_argument(
        "--no-gateway", action="store_false", dest="gateway",
        help="let TorchServe itself listen on the public addresses, without any protection",
    )  # fmt: skip
    models.add_argument("--background", action="store_true", help=argparse.SUPPRESS)
    parser = commandline.Parser(
        prog="python -m serving",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="command", required=True, metavar="command")
    verbs.add_parser("serve", parents=[common, device, models], help="serve in the foreground")
    verbs.add_parser("start", parents=[common, device, models], help="serve in the background")
    verbs.add_parser("stop", parents=[common], help="stop the server of this run folder")
    status = verbs.add_parser("status", parents=[common], help="show whether each model is ready")
    status.add_argument("--json", action="store_true", help="everything, as one JSON object")
    credentials.add_commands(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
