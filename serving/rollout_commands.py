"""rollout and rollback: ask the running server, and show what it says."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import httpx

from serving.commandline import Parser
from serving.errors import ServingError
from serving.runfolder import RunFolder
from serving.sockets import client

# The server says something every second.
_SILENCE_S = 60.0

ROLLOUT = """\
Serve another version of a model, without losing a request.

The archive is checked and copied into the model store. Its workers start beside the present ones,
prove their golden example and answer a canary. Then the version gets the requests: all of them, and
it is what the next start serves, or --share of those that name no version. A share can be changed,
and 1 completes it: give --share alone. The version before stays loaded for `rollback`.

If anything fails, nothing has changed, and the exit status is 1. Ctrl-C undoes a version that is
still loading.
"""
ROLLBACK = """\
Serve the version before the last rollout again, or end the share of one that is not complete.

The other version is unloaded when its last request is answered.
"""


def add_commands(verbs: Any, common: Parser) -> None:
    """Add ``rollout`` and ``rollback`` to the sub-parsers ``verbs``."""
    kind = argparse.RawDescriptionHelpFormatter
    rollout = verbs.add_parser(
        "rollout", parents=[common], help="serve another version of a model",
        description=ROLLOUT, formatter_class=kind,
    )  # fmt: skip
    rollback = verbs.add_parser(
        "rollback", parents=[common], help="serve the version before again",
        description=ROLLBACK, formatter_class=kind,
    )  # fmt: skip
    for parser in (rollout, rollback):
        parser.add_argument("--model", required=True, metavar="NAME", help="a model of the server")
    rollout.add_argument(
        "--archive", type=Path, metavar="FILE.mar",
        help="the new version (default: the one that has a share already)",
    )  # fmt: skip
    rollout.add_argument(
        "--share", type=_share, default=1.0, metavar="0.1",
        help="its part of the requests, from 0 (only those that name it) to 1 (default: 1)",
    )  # fmt: skip


def roll_out(run: RunFolder, model: str, archive: Path | None, share: float) -> int:
    """Serve ``archive``, or the candidate, to ``share`` of the requests for ``model``."""
    path = str(archive.resolve()) if archive else None
    return _ask(run, "/rollout", {"model": model, "archive": path, "share": share})


def roll_back(run: RunFolder, model: str) -> int:
    """Serve the version before the last rollout of ``model`` again."""
    return _ask(run, "/rollback", {"model": model})


def _ask(run: RunFolder, path: str, what: dict[str, object]) -> int:
    """Print the server's lines until its last one. ServingError if that is an error."""
    run.require_config()
    try:
        with (
            client(run.sockets.control) as http,
            http.stream("POST", path, json=what, timeout=_SILENCE_S) as answer,
        ):
            answer.raise_for_status()
            for line in filter(None, answer.iter_lines()):
                said = json.loads(line)
                if "error" in said:
                    raise ServingError(said["error"])
                print(said.get("progress") or said["done"], flush=True)
    except httpx.HTTPError as error:
        raise ServingError(
            f"the server of {run.path} does not answer ({error}): {run.make('status')} shows which "
            "version it serves"
        ) from error
    return 0


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, not {text!r}")
    return share
