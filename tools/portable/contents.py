"""What a portable bundle has: which files, under which names.

A bundle lists what it takes, so keys.txt, tls/ and other files of this checkout stay here.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from serving.archives import Archive
from serving.config import Config
from serving.errors import ServingError

ROOT = Path(__file__).parents[2]
FILES = ("LICENSE", "config.properties", "install.py", "requirements.lock", "deploy/__init__.py")
# Every file of these kinds in the folder.
FOLDERS = {
    "handlers": {".py"},
    "serving": {".py", ".lua", ".j2", ".xml"},
    "deploy/portable": {".py", ".md"},
}
# In config.properties, of files that a bundle does not carry.
SECRETS = ("api_keys", "tls_certificate", "tls_key", "tls_client_ca")
PYTHONS = "3.11 3.12 3.13"


@dataclass(frozen=True)
class Product:
    """The project's name and version, of pyproject.toml."""

    name: str
    version: str

    @classmethod
    def read(cls) -> Product:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        return cls(project["name"], project["version"])

    @property
    def full_name(self) -> str:
        """The name of the bundle's only folder and, with .tar.gz, of its file."""
        return f"{self.name}-{self.version}"


def sources(archives: Iterable[Archive], client: Path, wheels: Iterable[Path]) -> dict[str, Path]:
    """The files of a bundle that exist already, by their names in it.

    ``client`` is the client package's wheel. The networks are those of ``archives``, each with its
    `.pt` and `.json` if they are beside it.
    """
    found = {name: ROOT / name for name in FILES}
    for folder, kinds in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in kinds:
                found[str(path.relative_to(ROOT))] = path
    found["run"] = ROOT / "deploy/portable/run"
    found["README.md"] = found.pop("deploy/portable/README.md")
    found[f"client/{client.name}"] = client
    found |= {f"wheels/{wheel.name}": wheel for wheel in wheels}
    for archive in archives:
        for path in map(archive.path.with_suffix, (".mar", ".pt", ".json")):
            if path.is_file():
                found[f"model_store/{path.name}"] = path
    return dict(sorted(found.items()))


def about(product: Product, *, wheels: bool) -> dict[str, str]:
    """bundle.json: what the bundle is, and which Python and machine it can be installed on."""
    here = ".".join(map(str, sys.version_info[:2]))
    return {
        "name": product.name,
        "version": product.version,
        "commit": _commit(),
        "python": here if wheels else PYTHONS,
        "platform": f"{platform.system()} {platform.machine()}" if wheels else "any",
    }


def installer() -> str:
    """What install.py installs packages with, a requirement: `uv==0.13.9`."""
    match = re.search('^UV = "(.+?)"', (ROOT / "install.py").read_text(), re.MULTILINE)
    assert match
    return match[1]


def secrets_of(config: Config) -> list[str]:
    """The lines of ``config`` that name files which a bundle does not carry."""
    return [f"{key}={config.values[key]}" for key in SECRETS if config.values.get(key)]


def build_client(folder: Path) -> Path:
    """Build the client package in ``folder``, with its gRPC stubs; the wheel's path."""
    source = folder / "client"
    for name in ("pyproject.toml", "hatch_build.py", "README.md"):
        _copy(ROOT / "client" / name, source / name)
    package = ROOT / "client/vision_client"
    for path in package.rglob("*"):
        if path.is_file() and not re.search("__pycache__|inference_pb2", str(path)):
            _copy(path, source / "vision_client" / path.relative_to(package))
    uv = str(Path(sys.executable).with_name("uv"))
    command = [uv, "build", "--quiet", "--wheel", "--python", sys.executable]
    command += ["--build-constraints", str(ROOT / "requirements-dev.lock"), "--require-hashes"]
    done = subprocess.run([*command, "--out-dir", str(folder), str(source)], check=False)
    if done.returncode:
        raise ServingError("the wheel of client/ cannot be built: uv has printed why")
    return next(folder.glob("*.whl"))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes())


def _commit() -> str:
    """The commit of this checkout, with -dirty after changes; empty outside a repository."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
