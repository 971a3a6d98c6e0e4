"""``.pt`` + ``handlers/`` + serving defaults -> ``.mar``, by torch-model-archiver.

``python -m export.archive`` rebuilds the archives in the model store whose inputs have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from export import store
from export.errors import ExportError
from export.int8.alone import write_alone
from export.networks import Network, find
from export.weights import sha256_of

HANDLERS = Path(__file__).parents[1] / "handlers"
_ENTRY = "torchserve.py"


def build(network: Network, pt: Path, mar: Path) -> bool:
    """Archive ``pt`` and the ``.json`` beside it into ``mar``; False if nothing has changed.

    If the ``.json`` says so, the archive has the part of ``pt`` that int8 needs alone.
    ``inputs.json`` in the archive contains the digests of its inputs and the version that follows
    from them, so the archive itself shows whether it is current. It is built in a temporary folder
    and moved into place. Raises ExportError, without changing ``mar``, if an input is missing or
    invalid: ``pt`` must have the sha256 that its ``.json`` records.
    """
    if not pt.is_file():
        raise ExportError(f"{pt} does not exist: run `make export` first")
    files = handler_files(network.task)
    config = network.serving.to_yaml()
    inputs = _inputs(pt, config, files)
    if mar.is_file() and _inputs_of(mar) == inputs:
        return False
    with tempfile.TemporaryDirectory(prefix=".archive-", dir=mar.parent) as folder:
        stage = Path(folder)
        extra = stage / "extra"
        for source in files:
            copy = extra / "handlers" / source.relative_to(HANDLERS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
        receipt = pt.with_suffix(".json")
        shutil.copy(receipt, extra)
        if json.loads(receipt.read_text()).get("int8_alone"):
            write_alone(pt, stage / pt.name)
            pt = stage / pt.name
        (extra / "inputs.json").write_text(json.dumps(inputs, indent=1))
        yaml = stage / f"{network.name}.yaml"
        yaml.write_text(config)
        _run_archiver(network, pt, yaml, extra, stage, inputs["version"])
        (stage / f"{network.name}.mar").replace(mar)
    return True


def handler_files(task: str) -> list[Path]:
    """The files of ``handlers/`` that an archive contains: all but the other tasks."""
    tasks = HANDLERS / "tasks"
    own = tasks / f"{task}.py"
    return [
        path
        for path in package_files(HANDLERS)
        if path.parent != tasks or path in (own, tasks / "__init__.py")
    ]


def package_files(package: Path) -> list[Path]:
    """The files of ``package`` and its sub-folders, sorted, without byte code."""
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


def _run_archiver(
    network: Network, pt: Path, config: Path, extra: Path, stage: Path, version: str
) -> None:
    temporary = stage / "tmp"
    temporary.mkdir()
    command = [
        sys.executable, "-m", "model_archiver.model_packaging",
        "--model-name", network.name, "--version", version, "--archive-format", "zip-store",
        "--serialized-file", str(pt), "--handler", str(HANDLERS / _ENTRY),
        "--config-file", str(config), "--extra-files", str(extra), "--export-path", str(stage),
    ]  # fmt: skip
    # The archiver works in $TMPDIR/<model name>, which it deletes first.
    environment = {**os.environ, "TMPDIR": str(temporary)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        reason = run.stderr.strip()[-2000:]
        raise ExportError(f"torch-model-archiver failed on {network.name}:\n{reason}")


def _inputs(pt: Path, config: str, files: list[Path]) -> dict[str, str]:
    """The sha256 of everything in the archive, by kind, and its ``version``."""
    receipt = pt.with_suffix(".json")
    digest = sha256_of(pt)
    if digest != _exported_digest(receipt):
        raise ExportError(
            f"{pt} has sha256 {digest}, not the one in {receipt.name}: run `make export`"
        )
    parts = {
        "pt": digest,
        "json": sha256_of(receipt),
        "yaml": hashlib.sha256(config.encode()).hexdigest(),
        "handlers": digest_of(HANDLERS, files),
    }
    return {**parts, "version": version_of(parts)}


def version_of(inputs: Mapping[str, str]) -> str:
    """The version of an archive, from the digests of its inputs: 8 hexadecimal digits.

    Archives with the same content have the same version, others have different ones.
    """
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:8]


def _exported_digest(receipt: Path) -> str:
    """The sha256 that the ``.pt`` had when it was exported, from the ``.json`` beside it."""
    try:
        return str(json.loads(receipt.read_text())["pt"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{receipt} has no digest of the network: run `make export`") from error


def _inputs_of(mar: Path) -> object:
    try:
        with zipfile.ZipFile(mar) as archive:
            return json.loads(archive.read("inputs.json"))
    except (zipfile.BadZipFile, KeyError, ValueError):
        return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m export.archive", description=__doc__)
    parser.add_argument(
        "name", nargs="*", help="name of a model in the model store; default: all of them"
    )
    parser.add_argument("--model-store", type=Path, default=store.DEFAULT, metavar="DIR")
    arguments = parser.parse_args()
    for name in arguments.name:
        if not re.fullmatch("[a-z0-9_]+", name):
            parser.error(f"no model can be called {name!r}: give a name without folder and suffix")
    folder = arguments.model_store
    try:
        with store.locked(folder):
            names = arguments.name or sorted(pt.stem for pt in folder.glob("*.pt"))
            if not names:
                raise ExportError(f"{folder} holds no network: run `make export` first")
            failed = [name for name in names if not _rebuild(folder, name)]
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 1 if failed else 0


def _rebuild(folder: Path, name: str) -> bool:
    """Whether the archive of ``name`` is current now; prints what was done, or why it failed."""
    pt, mar = folder / f"{name}.pt", folder / f"{name}.mar"
    try:
        built = build(exported_network(pt), pt, mar)
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return False
    print(f"{mar}: {'archived' if built else 'unchanged'}, {store.size(mar)}")
    return True


def exported_network(pt: Path) -> Network:
    """The network that ``pt`` was exported from, by the ``.json`` beside it; or ExportError."""
    receipt = pt.with_suffix(".json")
    try:
        record = json.loads(receipt.read_text())
        reference, task = str(record["network"]), str(record["spec"]["task"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{receipt} does not name its network: run `make export`") from error
    try:
        network = find(reference, task)
    except ExportError as error:
        raise ExportError(f"{pt.stem}: {error}") from error
    if network.name != pt.stem:
        raise ExportError(f"{reference} now defines {network.name}, not {pt.stem}")
    return network


if __name__ == "__main__":
    sys.exit(main())
