"""The command ``vision``."""

import sys

from vision_client.extras import MissingExtra, extra


def main() -> None:
    """The entry point; it works without the ``cli`` extra to the extent that it asks for it."""
    try:
        with extra("cli", "the command vision"):
            from vision_client.cli.app import run
        run()
    except MissingExtra as error:
        sys.exit(f"vision: {error}")


__all__ = ["main"]
