"""What the tools that use a running server have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from serving.config import Config
from serving.errors import ServingError
from serving.inference import bypass_proxy
from serving.management import Management
from serving.runfolder import RunFolder


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """A parser for ``python -m module`` with the options that name a server."""
    made = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    made.add_argument(
        "--config", type=Path, default=Path("config.properties"), metavar="FILE",
        help="TorchServe's configuration (default: %(default)s)",
    )  # fmt: skip
    made.add_argument(
        "--run-dir", type=Path, default=Path("run"), metavar="DIR",
        help="logs and state of the server (default: %(default)s)",
    )  # fmt: skip
    return made


def run(command: Callable[[Config, RunFolder], int], arguments: argparse.Namespace) -> int:
    """``command``'s exit status; prints its ServingError."""
    try:
        config = Config.read(arguments.config)
        bypass_proxy(config)
        return command(config, RunFolder(arguments.run_dir))
    except ServingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def tasks(management: Management) -> dict[str, str]:
    """The task of each model that the server serves."""
    return {
        model: management.describe(model)["spec"]["task"] for model in sorted(management.models())
    }
