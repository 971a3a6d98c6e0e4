"""The networks: one file for each, which defines ``NETWORK``.

``torchvision.py`` stands for all classifiers of torchvision.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

from export.errors import ExportError
from export.network import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Checkpoint,
    Example,
    Network,
    Preprocessing,
    Sizes,
    StateDict,
)
from export.serving import Serving
from export.weights import Download

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Checkpoint",
    "Download",
    "Example",
    "Network",
    "Preprocessing",
    "Serving",
    "Sizes",
    "StateDict",
    "find",
    "registered",
]


@functools.cache
def registered() -> dict[str, Network]:
    """The bundle's own networks by name: those of the files in this folder."""
    networks = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if network := getattr(module, "NETWORK", None):
            networks[network.name] = dataclasses.replace(network, reference=network.name)
    return networks


def find(reference: str, task: str | None = None) -> Network:
    """The network of that name, here or in torchvision, or of the file at that path.

    With ``task`` as that task uses it: see ``Network.with_task``.

    A file can import its siblings while it is executed. An export notices changes of the file
    itself only: after a change of a sibling, export with ``--force``.

    Raises ExportError that says what is wrong with the name or the file.
    """
    network = _find(reference)
    try:
        return network.with_task(task) if task else network
    except ValueError as error:
        raise ExportError(str(error)) from error


def _find(reference: str) -> Network:
    from export.networks import torchvision

    if reference.endswith(".py") or "/" in reference:
        return _from_file(Path(reference).expanduser().resolve())
    if reference in registered():
        return registered()[reference]
    if reference in torchvision.names():
        return torchvision.network(reference)
    known = {*registered(), *torchvision.names()}
    close = difflib.get_close_matches(reference, known, n=4)
    hint = (
        f"did you mean {' or '.join(close)}?" if close else f"there is {', '.join(registered())}."
    )
    raise ExportError(
        f"no network is called {reference!r}: {hint} Any classifier of torchvision can be named, "
        "and so can a .py file"
    )


def _from_file(path: Path) -> Network:
    if path.is_dir():
        raise ExportError(f"{path} is a folder, not a .py file")
    if not path.is_file():
        raise ExportError(f"{path}: there is no such file")
    if path.suffix != ".py":
        raise ExportError(f"{path} is not a .py file")
    # dataclasses look their module up by its name.
    name = f"_network_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the file is the user's: it may raise anything
        why = str(error) or "no message"
        raise ExportError(f"{path} cannot be read: {type(error).__name__}: {why}") from error
    finally:
        sys.path.remove(str(path.parent))
    network = getattr(module, "NETWORK", None)
    if not isinstance(network, Network):
        what = "no NETWORK" if network is None else f"a NETWORK of type {type(network).__name__}"
        raise ExportError(f"{path} defines {what}; it must be an export.networks.Network")
    if network.name in registered() and path.parent != Path(__file__).resolve().parent:
        raise ExportError(
            f"{path}: the bundle has a network called {network.name}, whose files this one would "
            "replace: choose another name"
        )
    return dataclasses.replace(network, reference=str(path))
