"""What is checked before TorchServe starts, because it would fail late, quietly, or not at all."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

from handlers.pictures.limits import Limits
from handlers.settings import Settings
from serving.config import DEFAULT_SIZE, Config
from serving.errors import ServingError
from serving.runfolder import RunFolder

# Beside the archives: logs, the effective configuration, TorchServe's own files.
SPARE_BYTES = 64 * 2**20


def check_archives(config: Config) -> dict[str, Path]:
    """The archive of each model by the name it will be served as; ServingError for a faulty one.

    TorchServe reports Healthy with an archive that it could not open.
    """
    if not config.archives:
        raise ServingError(f"{config.path} names no archives in load_models")
    models: dict[str, Path] = {}
    for path in config.archives:
        name = _model_name(path)
        if name in models:
            raise ServingError(f"{path} and {models[name]} both hold the model {name}")
        models[name] = path
    return models


def check_limits(config: Config) -> None:
    """ServingError where TorchServe would cut off what an archive's limits allow.

    A request over its size is answered without a word of ours, an answer over it kills the worker.
    """
    for path in config.archives:
        limits = read_limits(path)
        # As base64, with room for the options; an incompressible PNG has a byte a row besides.
        for need, key in (
            (limits.request_bytes * 4 // 3 + 2**16, "max_request_size"),
            (limits.network_pixels * 3 * 101 // 100, "max_response_size"),
        ):
            size = config.number(key, DEFAULT_SIZE)
            if need > size:
                raise ServingError(
                    f"the limits in {path} need {key}={need} or more in {config.path}, which has "
                    f"{size}"
                )


def check_space(config: Config, run: RunFolder) -> None:
    """ServingError where logs cannot be written or the archives not be unpacked."""
    unpacked = sum(path.stat().st_size for path in config.archives)
    temporary = Path(tempfile.gettempdir())
    make_run_folder(run)
    for folder, need, remedy in (
        (run.path, SPARE_BYTES, "choose another place with --run-dir"),
        (
            temporary,
            SPARE_BYTES + unpacked,
            "the archives are unpacked there; TMPDIR names another",
        ),
    ):
        free = shutil.disk_usage(folder).free
        if free < need:
            raise ServingError(
                f"{folder} has {free / 2**20:.0f} MiB free, {need / 2**20:.0f} are needed: free "
                f"some, or {remedy}"
            )


def make_run_folder(run: RunFolder) -> None:
    """Make it where it is not there; ServingError where it cannot be written to."""
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run.path):
            pass
    except OSError as error:
        raise ServingError(
            f"cannot write to {run.path} ({error.strerror}): choose another with --run-dir"
        ) from error


def check_ports(config: Config) -> None:
    """ServingError where an address is taken or is not this machine's."""
    for key, (host, port) in config.addresses.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as probe:
            # As TorchServe's server does: what lingers of a closed connection is no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                raise ServingError(
                    f"cannot listen on {host}:{port} ({error.strerror}): stop what uses it "
                    f"(a server of ours: `make stop`), or change {key} in {config.path}"
                ) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The YAML of the archive ``path``."""
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        return dict(yaml.safe_load(archive.read(manifest["model"]["configFile"])) or {})


def read_limits(path: Path) -> Limits:
    """The limits of the archive ``path``; ServingError where its YAML has a wrong one."""
    try:
        return Settings.from_yaml(read_yaml(path)).limits
    except ValueError as error:
        raise ServingError(f"{path}: {error}; mend its YAML and run `make archive`") from error


def _model_name(path: Path) -> str:
    if not path.is_file():
        raise ServingError(
            f"{path} is not there: run `make export` (or `make export WEIGHTS=random`)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged:
                raise ServingError(f"{path} is damaged at {damaged}: run `make archive`")
            model = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
            for key in ("handler", "serializedFile", "configFile"):
                archive.getinfo(model[key])
            name: str = model["modelName"]
            return name
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise ServingError(f"{path} is no whole archive ({error}): run `make archive`") from error
