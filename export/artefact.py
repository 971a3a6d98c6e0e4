"""Adds files and OpenVINO's networks to a ``.pt``; ``handlers/network/artefact.py`` reads them."""

from __future__ import annotations

import hashlib
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

# OpenVINO's own files align constants as well.
_ALIGNMENT = 64
# The fixed part of a file's header in a zip; the name and an optional field follow.
_HEADER = 30


def append(pt: Path, files: Mapping[str, bytes]) -> None:
    """Append ``files`` by name to the extra files of ``pt``, uncompressed."""
    with zipfile.ZipFile(pt, "a") as file:
        for name, content in files.items():
            file.writestr(_path(file, name), content)


def append_model(pt: Path, name: str, model: Any) -> None:
    """Append ``model`` (``openvino.Model``) as the extra files ``name.xml`` and ``name.bin``.

    A constant that ``pt`` has already, such as a weight of the TorchScript network, is not stored
    again. The offsets in the ``.xml`` count from the start of ``pt``.
    """
    program, constants = _serialized(model)
    known = _records(pt)
    with zipfile.ZipFile(pt, "a") as file:
        start = file.start_dir + _HEADER + len(_path(file, f"{name}.bin"))
    new = bytearray()
    root = ElementTree.fromstring(program)  # noqa: S314  # OpenVINO has just written it
    for data in root.iterfind("./layers//layer[@type='Const']/data"):
        offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
        content = constants[offset : offset + size]
        digest = hashlib.sha256(content).digest()
        if digest not in known:
            new += bytes(-(start + len(new)) % _ALIGNMENT)
            known[digest] = start + len(new)
            new += content
        data.set("offset", str(known[digest]))
    # The constants first, at ``start``.
    append(pt, {f"{name}.bin": bytes(new), f"{name}.xml": ElementTree.tostring(root)})


def _path(file: zipfile.ZipFile, name: str) -> str:
    """The path in the zip of the extra file ``name``."""
    return f"{file.namelist()[0].partition('/')[0]}/extra/{name}"


def _serialized(model: Any) -> tuple[bytes, bytes]:
    """``model`` as OpenVINO's XML and its constants."""
    import openvino

    with tempfile.TemporaryDirectory(prefix="openvino-") as folder:
        program, constants = Path(folder, "model.xml"), Path(folder, "model.bin")
        openvino.serialize(model, program, constants)
        return program.read_bytes(), constants.read_bytes()


def _records(pt: Path) -> dict[bytes, int]:
    """The offset of each aligned, uncompressed file in the zip ``pt``, by its sha256."""
    offsets = {}
    with zipfile.ZipFile(pt) as file, pt.open("rb") as raw:
        for record in file.infolist():
            if record.compress_type == zipfile.ZIP_STORED and record.file_size:
                # The lengths of the name and of the optional field after it.
                raw.seek(record.header_offset + 26)
                lengths = sum(struct.unpack("<HH", raw.read(4)))
                offset = record.header_offset + _HEADER + lengths
                if offset % _ALIGNMENT == 0:  # as PyTorch stores tensors
                    offsets[hashlib.sha256(file.read(record)).digest()] = offset
    return offsets
