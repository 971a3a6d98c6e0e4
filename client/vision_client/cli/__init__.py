"""The command ``vision``."""

import sys

from vision_client.extras import MissingExtra, extra


def main() -> None:
    """The entry point. Without the ``cli`` extra, it prints the command that installs it."""
    try:
        with extra("cli", "the command vision"):
            from vision_client.cli.app import run
        run()
    except MissingExtra as error:
        sys.exit(f"vision: {error}")


__all__ = ["main"]
