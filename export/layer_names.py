"""Names in a user's state dict -> names in the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import torch

from export.fit import COUNTER
from export.network import StateDict

# What a module for training alone is called, as Lightning modules have them beside their network.
_TRAINING = re.compile("loss|criteri|metric|class_weight", re.IGNORECASE)


@dataclass(frozen=True)
class Renamed:
    """``state`` has the network's own names, which had ``prefix``.

    ``needed`` are names without it that may change the answers. ``note`` says what was renamed or
    left out, or is empty.
    """

    state: StateDict
    prefix: str
    needed: tuple[str, ...]
    note: str


def renamed(state: StateDict, head: str, expected: Callable[[], Iterable[str]]) -> Renamed:
    """``state`` with the network's own names: its head's if any, and all of them, in order.

    DataParallel, Lightning modules and others keep the network in an attribute, and perhaps other
    things beside it: then its names have a prefix, and what does not have it is left out.
    torch.compile adds ``_orig_mod`` to a module wherever it stands. A head that was replaced by
    another single layer, for instance ``Sequential(Dropout, Linear)``, gets the name of the head.
    ValueError if it holds several networks.
    """
    state = {key.replace("_orig_mod.", ""): tensor for key, tensor in state.items()}
    found = _find_head(state, head)
    if found and found[1] != head and f"{found[1]}.weight" in {*expected()}:
        found = None  # another layer of the network: its head is missing
    prefix, given = found or (_find_body(state, head, expected()), head)
    left_out = [key for key in state if not key.startswith(prefix)]
    own = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
    if given != head:
        own = {re.sub(rf"^{re.escape(given)}\.", f"{head}.", key): own[key] for key in own}
    notes = [f"names without {prefix}"] if prefix else []
    notes += [f"{given} as {head}"] if given != head else []
    notes += [f"left out {listed(left_out)}"] if left_out else []
    needed = tuple(key for key in left_out if not _for_training(key, state[key]))
    return Renamed(own, prefix, needed, ", ".join(notes))


def listed(names: Collection[str]) -> str:
    """The first few of ``names``."""
    first = [*names][:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _for_training(name: str, tensor: torch.Tensor) -> bool:
    """Whether it counts something, or belongs to a loss or a metric: one number, or one a class."""
    return not tensor.is_floating_point() or (tensor.ndim < 2 and bool(_TRAINING.search(name)))


def _find_head(state: StateDict, head: str) -> tuple[str, str] | None:
    """The prefix of all names, and the name without it of the layer that stands for ``head``.

    A head of ``classifier.1`` may have become ``classifier.1.1``, or ``classifier`` itself.
    """
    parts = head.split(".") if head else []
    for place in (".".join(parts[:n]) for n in range(len(parts), 0, -1)):
        pattern = rf"(|.+?\.)({re.escape(place)}(?:\.\w+)*)\.weight"
        found = [match for key in state if (match := re.fullmatch(pattern, key))]
        if found:
            prefix = _outermost([match[1] for match in found])
            given = [match[2] for match in found if match[1] == prefix]
            return prefix, given[0] if len(given) == 1 else head
    return None


def _find_body(state: StateDict, head: str, expected: Iterable[str]) -> str:
    """The prefix of the network's first and last name, its head apart; else of the first."""
    body = [
        key
        for key in expected
        if not key.endswith(COUNTER) and not (head and key.startswith(f"{head}."))
    ]
    first, last = (body[0], body[-1]) if body else ("", "")
    prefixes = [key.removesuffix(first) for key in state if f".{key}".endswith(f".{first}")]
    whole = [prefix for prefix in prefixes if prefix + last in state]
    return _outermost(whole) if whole else min(prefixes, key=len, default="")


def _outermost(prefixes: list[str]) -> str:
    """The shortest. ValueError if another does not begin with it."""
    prefix = min(prefixes, key=len)
    if others := {other for other in prefixes if not other.startswith(prefix)}:
        names = ", ".join(sorted({prefix, *others}))
        raise ValueError(
            f"the checkpoint holds several networks, whose names begin with {names}: save the "
            'one that you mean with torch.save(model.state_dict(), "weights.pth")'
        )
    return prefix
