"""GitHub's workflows: what they run is pinned, and includes the audit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

WORKFLOWS = sorted((Path(__file__).parents[1] / ".github").rglob("*.y*ml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_commit(path: Path) -> None:
    """A tag can be moved to other code; the comment names the tag that the commit had."""
    lines = [line for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


@pytest.mark.slow
def test_the_audit_must_pass_on_github() -> None:
    (path,) = WORKFLOWS
    steps = yaml.safe_load(path.read_text())["jobs"]["check"]["steps"]
    assert {"run": "make audit"} in steps
