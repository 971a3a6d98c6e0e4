"""What the tools that use a running server have in common."""

from __future__ import annotations

from serving.commandline import Parser, add_server_options
from serving.management import Management


def parser(module: str, description: str | None) -> Parser:
    """A parser for ``python -m module`` with the options that name a server."""
    made = Parser(prog=f"python -m {module}", description=description)
    add_server_options(made)
    return made


def tasks(management: Management) -> dict[str, str]:
    """The task of each model that the server serves."""
    return {
        model: management.describe(model)["spec"]["task"] for model in sorted(management.models())
    }
