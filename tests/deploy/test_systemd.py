"""The unit for systemd: verified by systemd's own tools, and in agreement with the server."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from serving import preflight
from serving.config import Config
from serving.gateway.credentials import Credentials
from tests.debian import require
from tests.deploy.started import configured, longest_end
from tests.running import ROOT

UNIT = ROOT / "deploy/systemd/vision.service"
# Where systemd puts the files of LoadCredential=, %d in the unit.
CREDENTIALS = "/run/credentials/vision.service"


@pytest.fixture(scope="module")
def service() -> dict[str, list[str]]:
    """The values of each key."""
    lines = UNIT.read_text().replace("\\\n", "").splitlines()
    pairs = [line.split("=", 1) for line in lines if re.match(r"\w+=", line)]
    return {key: [value for name, value in pairs if name == key] for key, _ in pairs}


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, for this checkout instead of /srv/vision."""
    require("systemd")
    path = tmp_path / "vision.service"
    path.write_text(UNIT.read_text().replace("/srv/vision", str(ROOT)))
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, arguments)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_systemd_takes_the_unit(unit: Path) -> None:
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("ProtectClock=", "ProtectClocks="))
    assert "ProtectClocks" in analyze("verify", unit).stderr  # it does look


def test_systemd_rates_it_as_well_protected(unit: Path) -> None:
    done = analyze("security", "--offline=yes", "--threshold=20", unit)  # of 100, 0 is the best
    assert done.returncode == 0, done.stdout


def config(service: dict[str, list[str]]) -> Config:
    [command] = service["ExecStart"]
    python, *words = shlex.split(command.replace("%d", CREDENTIALS))
    assert [python, *words[:3]] == ["/srv/vision/.venv/bin/python", "-m", "serving", "serve"]
    return configured(*words[3:])


def test_the_server_takes_the_command(service: dict[str, list[str]]) -> None:
    used = config(service)
    credentials = Credentials.of(used)
    assert preflight.check_exposure(used, credentials, gateway=True) == ""
    files = [credentials.keys, *(credentials.certificate or ())]
    loaded = [line.split(":")[0] for line in service["LoadCredential"]]
    assert [str(path) for path in files] == [f"{CREDENTIALS}/{name}" for name in loaded]


def test_it_has_time_to_drain(service: dict[str, list[str]]) -> None:
    [seconds] = service["TimeoutStopSec"]
    assert int(seconds) >= longest_end(config(service))
    assert service["KillMode"] == ["mixed"]  # SIGTERM to the supervisor alone


def test_it_may_open_as_many_files_as_there_are_connections(
    service: dict[str, list[str]],
) -> None:
    [files] = service["LimitNOFILE"]
    assert int(files) >= config(service).number("gateway_connections", 0) + 512
