"""Serve the archives in the model store, keep every model answering, replace a version of one while
the server runs, and make certificates and API keys.
"""

from __future__ import annotations

import argparse
import sys

from serving import commandline, commands, credentials, rollout_commands
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
        case "rollout":
            return commandline.run_beside(
                lambda folder: rollout_commands.roll_out(
                    folder, arguments.model, arguments.archive, arguments.share
                ),
                arguments,
            )
        case "rollback":
            return commandline.run_beside(
                lambda folder: rollout_commands.roll_back(folder, arguments.model), arguments
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
    models = commandline.Parser(add_help=False)
    commandline.add_model_options(models)
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
    verbs.add_parser("serve", parents=[common, models], help="serve in the foreground")
    verbs.add_parser("start", parents=[common, models], help="serve in the background")
    verbs.add_parser("stop", parents=[common], help="stop the server of this run folder")
    status = verbs.add_parser("status", parents=[common], help="show whether each model is ready")
    status.add_argument("--json", action="store_true", help="everything, as one JSON object")
    rollout_commands.add_commands(verbs, common)
    credentials.add_commands(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
