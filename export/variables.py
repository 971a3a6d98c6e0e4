"""Refuses variables of networks that are not exported: the export would ignore them in silence."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

from export.errors import ExportError
from export.networks import torchvision

SUFFIXES = ("WEIGHTS", "LABELS", "PREPROCESS")
_VARIABLE = re.compile(rf"(?P<name>[A-Za-z]\w*)_(?P<suffix>{'|'.join(SUFFIXES)})", re.ASCII)


def check(environment: Mapping[str, str], networks: Collection[str]) -> None:
    """ExportError if a variable such as RESNET50_WEIGHTS is for none of ``networks``.

    Any name counts on the command line of `make`, which is in MAKEFLAGS. In the environment only
    the names of torchvision's classifiers do: programs of others may have a MODEL_WEIGHTS.
    """
    known = {f"{network.upper()}_{suffix}" for network in networks for suffix in SUFFIXES}
    typed = environment.get("MAKEFLAGS", "")
    for variable in environment:
        match = _VARIABLE.fullmatch(variable)
        if not match or variable in known:
            continue
        name, suffix = match["name"].lower(), match["suffix"]
        if name in torchvision.names():
            raise ExportError(
                f"{variable} is set, but {name} is not exported here: make export NETWORK={name} "
                f"{suffix}={environment[variable]}"
            )
        if re.search(rf"(^|\s){variable}=", typed):
            near = difflib.get_close_matches(variable, sorted(known), 1)
            did = f"; did you mean {near[0]}?" if near else f": {', '.join(sorted(known))}"
            raise ExportError(f"{variable} is for no network that is exported here{did}")
