"""Serve the archives in the model store with Ray Serve, on this machine.

Clients need no change: addresses, options, answers and errors are those of `make serve`. For a
cluster of machines see docs/scaling.md.
"""

from __future__ import annotations

import argparse
import sys

from deploy.ray import commands
from serving import commandline
from serving.plan import Options

EPILOG = """\
Exit status: 0 after Ctrl-C or SIGTERM, else 1 (2: a wrong option), and the reason is printed.

Ctrl-C and SIGTERM let the server answer what it has accepted; a second one drops it.
"""


def main() -> int:
    arguments = _parser().parse_args()
    options = Options(
        arguments.device,
        arguments.models,
        arguments.workers,
        arguments.precision,
        arguments.engine,
    )
    return commandline.run(lambda config, _: commands.serve(config, options), arguments)


def _parser() -> commandline.Parser:
    common = commandline.Parser(add_help=False)
    commandline.add_server_options(common)
    commandline.add_model_options(common)
    parser = commandline.Parser(
        prog="python -m deploy.ray",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="command", required=True, metavar="command")
    verbs.add_parser("serve", parents=[common], help="serve in the foreground")
    return parser


if __name__ == "__main__":
    sys.exit(main())
