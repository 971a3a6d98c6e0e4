"""``.pt`` + ``handlers/`` + YAML -> ``.mar``, by torch-model-archiver.

``python -m export.archive`` rebuilds the archives in ``model_store/`` whose inputs have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import yaml

from export.errors import ExportError
from export.store import add_arguments, locked, size
from export.weights import sha256_of
from handlers.settings import Settings
from handlers.specs import SPECS

HERE = Path(__file__).parent
HANDLERS = HERE.parent / "handlers"

# What TorchServe 0.12's ModelConfig reads; any other key it ignores in silence.
_YAML_KEYS = {
    "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout",
    "deviceType", "deviceIds", "maxRetryTimeoutInSec", "jobQueueSize", "handler",
}  # fmt: skip


def build(name: str, pt: Path, mar: Path) -> bool:
    """Archive ``pt`` and the ``.json`` beside it into ``mar``; False where nothing has changed.

    The archive names the digests of its inputs in ``inputs.json``, so it alone tells whether it is
    current. It is built aside and moved into place whole. Raises ExportError, and leaves ``mar`` as
    it was, where an input is missing or wrong; ``pt`` must have the sha256 that its export noted.
    """
    if not pt.is_file():
        raise ExportError(f"{pt} is not there: run `make export` first")
    config = HERE / f"{name}.yaml"
    _check_yaml(config)
    inputs = _inputs(pt, config)
    if mar.is_file() and _inputs_of(mar) == inputs:
        return False
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=mar.parent) as folder:
        stage = Path(folder)
        vendored = stage / "extra"
        for source in package_files(HANDLERS):
            copy = vendored / "handlers" / source.relative_to(HANDLERS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
        shutil.copy(pt.with_suffix(".json"), vendored)
        (vendored / "inputs.json").write_text(json.dumps(inputs, indent=1))
        _run_archiver(name, pt, config, vendored, stage)
        (stage / f"{name}.mar").replace(mar)
    return True


def package_files(package: Path) -> list[Path]:
    """The files of ``package`` and its sub-folders, sorted; byte code is left out."""
    return sorted(
        path
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.relative_to(package).parts
    )


def digest_of(package: Path, files: Iterable[Path]) -> str:
    """One sha256 over the names, relative to ``package``, and the contents of ``files``."""
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(package).as_posix()
        digest.update(f"{name}\0{sha256_of(path)}\0".encode())
    return digest.hexdigest()


def _run_archiver(name: str, pt: Path, config: Path, extra: Path, stage: Path) -> None:
    temporary = stage / "tmp"
    temporary.mkdir()
    command = [
        sys.executable, "-m", "model_archiver.model_packaging",
        "--model-name", name, "--version", "1.0", "--archive-format", "zip-store",
        "--serialized-file", str(pt), "--handler", str(HANDLERS / "torchserve.py"),
        "--config-file", str(config), "--extra-files", str(extra), "--export-path", str(stage),
    ]  # fmt: skip
    # It stages in $TMPDIR/<model name>, and first deletes whatever has that name.
    environment = {**os.environ, "TMPDIR": str(temporary)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise ExportError(f"torch-model-archiver failed on {name}:\n{run.stderr.strip()[-2000:]}")


def _check_yaml(path: Path) -> None:
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ExportError(f"{path} is no YAML: {error}") from error
    if not isinstance(config, dict):
        raise ExportError(f"{path} must be a map of TorchServe's options")
    unknown = set(config) - _YAML_KEYS
    if unknown:
        raise ExportError(f"{path} has {', '.join(sorted(unknown))}, which TorchServe would ignore")
    if ("minWorkers" in config) != ("maxWorkers" in config):
        raise ExportError(f"{path}: TorchServe heeds minWorkers and maxWorkers only together")
    try:
        Settings.from_yaml(config)
    except ValueError as error:
        raise ExportError(f"{path}: {error}") from error


def _inputs(pt: Path, config: Path) -> dict[str, str]:
    """The sha256 of everything in the archive, by kind."""
    about = pt.with_suffix(".json")
    digest = sha256_of(pt)
    if digest != _exported_digest(about):
        raise ExportError(
            f"{pt} has sha256 {digest}, not the one that {about.name} has of it: run `make export`"
        )
    return {
        "pt": digest,
        "json": sha256_of(about),
        "yaml": sha256_of(config),
        "handlers": digest_of(HANDLERS, package_files(HANDLERS)),
    }


def _exported_digest(about: Path) -> str:
    """The sha256 of the ``.pt`` when it was exported, from the ``.json`` beside it."""
    try:
        return str(json.loads(about.read_text())["pt"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{about} has no digest of the network: run `make export`") from error


def _inputs_of(mar: Path) -> object:
    try:
        with zipfile.ZipFile(mar) as archive:
            return json.loads(archive.read("inputs.json"))
    except (zipfile.BadZipFile, KeyError, ValueError):
        return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m export.archive", description=__doc__)
    add_arguments(parser)
    arguments = parser.parse_args()
    store = arguments.model_store
    try:
        with locked(store):
            for name in arguments.model or SPECS:
                mar = store / f"{name}.mar"
                built = build(name, store / f"{name}.pt", mar)
                print(f"{mar}: {'archived' if built else 'unchanged'}, {size(mar)}")
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
