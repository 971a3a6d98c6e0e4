"""Variables of networks that are not exported: the export would ignore them in silence."""

from __future__ import annotations

import contextlib
import difflib
import re
import shlex
from collections.abc import Mapping

from export.errors import ExportError
from export.network import TASKS
from export.networks import Network, find, torchvision

SUFFIXES = ("WEIGHTS", "LABELS", "PREPROCESS")
_VARIABLE = re.compile(rf"(?P<name>[A-Za-z]\w*)_(?P<suffix>{'|'.join(SUFFIXES)})", re.ASCII)


def check(environment: Mapping[str, str], networks: Mapping[str, Network]) -> list[str]:
    """Warnings for variables such as RESNET50_WEIGHTS that are for none of ``networks``, by name.

    ExportError if one is on the command line of `make`, which is in MAKEFLAGS: there any name
    counts. In the environment only the names of ``networks`` and of torchvision's classifiers do:
    programs of others may have a MODEL_WEIGHTS. ExportError, too, for labels of a network without
    classes. Empty variables are ignored.
    """
    known = {network.variable(suffix) for network in networks.values() for suffix in SUFFIXES}
    warnings = []
    for variable, value in environment.items():
        match = _VARIABLE.fullmatch(variable)
        if not match or not value:
            continue
        typed = re.search(rf"(^|\s){variable}=", environment.get("MAKEFLAGS", "")) is not None
        meant = _meant(match["name"].lower(), networks)
        if meant and match["suffix"] == "LABELS" and meant.output != "classes":
            problem = f"{variable} is set, but {meant.name} has no classes, so it takes no labels"
            raise ExportError(problem)
        if variable in known or not (typed or meant):
            continue
        if meant:
            export = f"{meant.command} {match['suffix']}={shlex.quote(value)}"
            problem = f"{variable} is set, but {meant.name} is not exported here: {export}"
        else:
            near = difflib.get_close_matches(variable, sorted(known), 1)
            did = f"; did you mean {near[0]}?" if near else f": {', '.join(sorted(known))}"
            problem = f"{variable} is for no network that is exported here{did}"
        if typed:
            raise ExportError(problem)
        warnings.append(problem)
    return warnings


def _meant(name: str, networks: Mapping[str, Network]) -> Network | None:
    """The network called ``name``, or ``NAME_TASK``: of ``networks`` or torchvision's."""
    base, _, task = name.rpartition("_")
    if name in networks or name in torchvision.names():
        return networks.get(name) or find(name)
    if task in TASKS and (base in networks or base in torchvision.names()):
        with contextlib.suppress(ValueError):  # it cannot have that task
            return (networks.get(base) or find(base)).with_task(task)
    return None
