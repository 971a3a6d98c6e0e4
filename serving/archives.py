"""The archives (``.mar``) to serve, each read and checked once."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from handlers import tasks
from handlers.metadata import Spec
from handlers.request import Integer
from handlers.settings import Settings, batch_size, response_timeout
from serving.config import Config
from serving.errors import ServingError
from vision_client.tasks import DECODERS

# A version, as a request may name it: what `make archive` gives an archive, or a number.
VERSION = re.compile(r"[0-9a-f]{1,16}(?:\.[0-9]{1,4})?")


@dataclass(frozen=True)
class Archive:
    """``model`` and ``weights`` are names; ``yaml`` holds TorchServe's options for the model.

    ``version`` tells archives of one model apart: those with other contents have another one.
    ``options`` are the whole numbers that a request may choose, by name.
    """

    path: Path
    model: str
    task: str
    weights: str
    yaml: Mapping[str, Any]
    settings: Settings
    options: Mapping[str, Integer]
    version: str

    @property
    def batch_size(self) -> int:
        """The most requests of a batch."""
        return batch_size(self.yaml)

    @property
    def response_timeout(self) -> int:
        """Seconds that a batch may take; TorchServe kills a worker that has not answered then."""
        return response_timeout(self.yaml)


def read_archives(config: Config) -> list[Archive]:
    """The archives that ``config`` serves; ServingError for a faulty one.

    TorchServe reports Healthy with an archive that it could not open.
    """
    archives: dict[str, Archive] = {}
    for path in config.archives:
        archive = read_archive(path)
        if archive.model in archives:
            other = archives[archive.model].path
            raise ServingError(f"{path} and {other} both hold the model {archive.model}")
        archives[archive.model] = archive
    return list(archives.values())


def read_archive(path: Path) -> Archive:
    """The archive at ``path``; ServingError if it is faulty."""
    if not path.is_file():
        raise ServingError(
            f"{path} does not exist: run `make export` (or `make export WEIGHTS=random`)"
        )
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
            if damaged:
                raise ServingError(f"{path} is damaged at {damaged}: run `make archive`")
            manifest = json.loads(file.read("MAR-INF/MANIFEST.json"))["model"]
            file.getinfo(manifest["handler"])
            pt = file.getinfo(manifest["serializedFile"]).filename
            settings = dict(yaml.safe_load(file.read(manifest["configFile"])) or {})
            metadata = json.loads(file.read(str(Path(pt).with_suffix(".json"))))
            model, spec = str(manifest["modelName"]), dict(metadata["spec"])
            version = str(manifest["modelVersion"])
            task = spec.get("task")
            weights = str(metadata.get("weights", {}).get("name"))
    except (zipfile.BadZipFile, yaml.YAMLError, KeyError, TypeError, ValueError, OSError) as error:
        raise ServingError(
            f"{path} is not a complete archive ({error}): run `make archive`, or `make export` if "
            "that does not help"
        ) from error
    if task is None:
        raise ServingError(f"{path} was exported by an older version: run `make export`")
    if task not in DECODERS:
        raise ServingError(
            f"{path} has the task {task!r}, which cannot be checked: add its decoder to DECODERS "
            "in client/vision_client/tasks"
        )
    try:
        options = tasks.load(Spec.from_map(spec)).offer.integers
    except TypeError as error:
        raise ServingError(f"{path} was exported by another version: run `make export`") from error
    if not VERSION.fullmatch(version):
        raise ServingError(
            f"{path} has the version {version!r}, which no request can name: run `make archive`"
        )
    try:
        parsed = Settings.from_yaml(settings)
        return Archive(path, model, task, weights, settings, parsed, options, version)
    except ValueError as error:
        raise ServingError(
            f"{path}: {error}; correct serving=Serving(...) in the network's file "
            "(export/networks/NAME.py or your own) and run `make archive`"
        ) from error
