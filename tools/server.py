"""What the tools that use a running server have in common."""

from __future__ import annotations

import argparse

from serving.commandline import add_server_options
from serving.management import Management


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for ``python -m module`` with the options that name a server."""
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    add_server_options(made)
    return made


def tasks(management: Management) -> dict[str, str]:
    """The task of each model that the server serves."""
    return {
        model: management.describe(model)["spec"]["task"] for model in sorted(management.models())
    }
