"""What is checked before TorchServe starts, because it would fail late, quietly, or not at all."""

from __future__ import annotations

import json
import socket
import zipfile
from pathlib import Path

from serving.config import Config
from serving.errors import ServingError


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
