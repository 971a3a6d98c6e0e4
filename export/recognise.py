"""The known network that a state dict was saved from, when it does not fit the one asked for."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from export.fit import COUNTER
from export.layer_names import renamed
from export.network import Network, StateDict
from export.networks import find, registered, torchvision

_Shapes = dict[str, tuple[int, ...]]


def recognised(state: StateDict) -> tuple[Network, StateDict] | None:
    """The network that has the layers of ``state``, and ``state`` with that network's names.

    Its head may have other classes or several layers. None if no network of the bundle or of
    torchvision has these layers. Takes 0.1 to 3 s: modules are built without memory.
    """
    for name in _candidates(state):
        network = find(name)
        if own := _match(network, _skeleton(name), state):
            return network, own
    return None


def advice(network: Network, state: StateDict, path: Path, labels: Path | None) -> str | None:
    """What ``state``, which does not fit ``network``, is instead, and how it is exported.

    None if it is unknown. ``path`` and ``labels`` are the user's files.
    """
    found = recognised(state)
    if found is None:
        return None
    other, own = found
    pattern = rf"({re.escape(other.head)}(?:\.\w+)*)\.weight"
    head = sorted(match[1] for key in own if other.head and (match := re.fullmatch(pattern, key)))
    if head and head != [other.head]:
        return (
            f"it has the layers of {other.name}, and as its head {', '.join(head)}; a head must be "
            "one layer: describe this network in a file, as docs/your-model.md shows"
        )
    if other.reference == network.reference:
        return None
    wanted = other
    if network.output == "features" and other.output == "classes":
        wanted = other.with_task(network.task)
    elif other.head and not head:
        return f"it has the layers of {other.name} without the last, {other.head}: save that, too"
    command = f"{wanted.command} WEIGHTS={shlex.quote(str(path))}"
    command += f" LABELS={shlex.quote(str(labels))}" if labels and head else ""
    classes = f" with {len(own[f'{other.head}.weight'])} classes" if head else ""
    return f"it looks like {other.name}{classes}:\n  {command}"


def _candidates(state: StateDict) -> Iterator[str]:
    """The bundle's networks, and torchvision's families whose first layer ``state`` has."""
    yield from registered()
    for members in torchvision.families():
        first = next(iter(_skeleton(members[0]).state_dict()))
        if any(f".{key}".endswith(f".{first}") for key in state):
            yield from members


def _skeleton(name: str) -> nn.Module:
    if name in torchvision.names():
        return torchvision.skeleton(name)
    network = registered()[name]
    with torchvision.WithoutMemory():
        return network.build(network.spec())


def _match(network: Network, skeleton: nn.Module, state: StateDict) -> StateDict | None:
    """``state`` with the names of ``network`` if it has all of its layers, but for the head."""
    layers = skeleton.state_dict()
    try:
        own = network.repair(renamed(state, network.head, lambda: layers).state)
    except ValueError:
        return None
    expected, given = (_body(s, network.head) for s in (layers, own))
    return own if expected == given else None


def _body(state: StateDict, head: str) -> _Shapes:
    return {
        key: tuple(tensor.shape)
        for key, tensor in state.items()
        if not key.endswith(COUNTER) and not (head and key.startswith(f"{head}."))
    }
