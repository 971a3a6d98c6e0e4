"""The command `vision`: photographs in, classes or zebras out."""

from vision_client.cli.commands import main

__all__ = ["main"]
