"""Installation: which Pythons it takes, and what production installs."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def locked(name: str) -> list[str]:
    """``package==version`` of every entry in a lock file."""
    return re.findall(r"^[\w.-]+==\S+", (ROOT / name).read_text(), re.MULTILINE)


def test_unsupported_python_is_refused() -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 10, 4, 'final', 0);"
        "runpy.run_path('install.py', run_name='__main__')"
    )
    command = ["python3", "-c", code]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "Python 3.10.4" in run.stderr
    assert "3.11, 3.12 or 3.13 is needed" in run.stderr


class Installer:
    """install.py in a folder of its own; the commands that it would run are only noted."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("requirements.lock", "requirements-ray.lock", "requirements-dev.lock",
                     "client/pyproject.toml", "client/vision_client/inference.proto",
                     "client/vision_client/inference_pb2.py",
                     "client/vision_client/inference_pb2_grpc.py"):  # fmt: skip
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        (folder / ".venv").mkdir()
        self.folder = folder
        self.fails = False
        self._synced: list[str] = []
        self._monkeypatch = monkeypatch
        path = folder / "install.py"
        path.write_text((ROOT / "install.py").read_text())
        spec = importlib.util.spec_from_file_location("install_of_a_test", path)
        assert spec is not None
        assert spec.loader is not None
        self._module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._module)
        monkeypatch.setattr(sys, "prefix", str(folder / ".venv"))
        monkeypatch.setattr(self._module, "run", self._run)

    def _run(self, *command: str) -> None:
        if "sync" in command:
            self._synced.append(Path(command[-1]).name)
            if self.fails:
                raise subprocess.CalledProcessError(1, command)

    def install(self, *options: str) -> str | None:
        """The lock that `install.py OPTIONS` installs, None if it has nothing to do."""
        self._synced.clear()
        self._monkeypatch.setattr(sys, "argv", ["install.py", *options])
        try:
            assert self._module.main() is None
        except subprocess.CalledProcessError:
            assert self.fails
        return self._synced[0] if self._synced else None

    def set_of_make(self) -> str:
        """What `make install` would call: the options that follow from the stamps in .venv."""
        makefile = (ROOT / "Makefile").read_text()
        (line,) = re.findall(r"^PRODUCTION \?= .*$", makefile, re.MULTILINE)
        (self.folder / "Makefile").write_text(f"{line}\nall:\n\t@echo $(PRODUCTION)\n")
        make = ["make", "--no-print-directory", "-C", str(self.folder)]
        run = subprocess.run(make, capture_output=True, text=True, check=True)
        return run.stdout.strip()


@pytest.fixture
def installer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installer:
    return Installer(tmp_path, monkeypatch)


def test_ray_comes_to_a_production_installation_and_stays(installer: Installer) -> None:
    assert installer.install("--production") == "requirements.lock"
    assert installer.install("--production", "--ray") == "requirements-ray.lock"
    assert installer.set_of_make() == "1"
    assert installer.install("--production") is None  # as `make serve` does
    assert installer.install("--production", "--ray") is None
    (installer.folder / "requirements.lock").write_text("an update")
    assert installer.install("--production") == "requirements-ray.lock"


def test_a_development_installation_has_ray(installer: Installer) -> None:
    assert installer.install("--production", "--ray") == "requirements-ray.lock"
    assert installer.install() == "requirements-dev.lock"
    assert installer.set_of_make() == ""
    assert installer.install("--ray") is None
    assert installer.install("--production") == "requirements.lock"


def test_an_interrupted_installation_goes_on_with_the_same_set(installer: Installer) -> None:
    assert installer.install("--production", "--ray") == "requirements-ray.lock"
    (installer.folder / "requirements.lock").write_text("an update")
    installer.fails = True
    assert installer.install("--production") == "requirements-ray.lock"
    assert installer.set_of_make() == "1"
    installer.fails = False
    assert installer.install("--production") == "requirements-ray.lock"


def test_production_installs_no_test_or_build_tools() -> None:
    production, ray = set(locked("requirements.lock")), set(locked("requirements-ray.lock"))
    development = set(locked("requirements-dev.lock"))
    assert production < ray < development
    assert "ray" in {entry.partition("==")[0] for entry in ray - production}
    tools = {"pytest", "mypy", "ruff", "hypothesis", "playwright", "hatchling", "grpcio-tools"}
    assert tools < {entry.partition("==")[0] for entry in development}
    assert not tools & {entry.partition("==")[0] for entry in ray}


@pytest.mark.parametrize("name", sorted(path.name for path in ROOT.glob("requirements*.lock")))
def test_lock_pins_every_package_by_hash_and_names_no_registry(name: str) -> None:
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert len(re.findall(r"^\S.*\n    --hash=sha256:", text, re.MULTILINE)) == len(locked(name))
    assert len(locked(name)) > 50


def test_no_usage_data_is_sent() -> None:
    """OpenVINO and NNCF send usage data if openvino-telemetry can be imported."""
    code = "import openvino, nncf, sys; print('openvino_telemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    for lock in ROOT.glob("requirements*.lock"):
        [line] = re.findall("^openvino-telemetry==.*$", lock.read_text(), re.MULTILINE)
        assert "sys_platform == 'never'" in line
