"""Names in a user's state dict -> names in the network."""

from __future__ import annotations

import re

from export.network import StateDict


def renamed(state: StateDict, layer: str) -> StateDict:
    """``state`` with the network's own names; ``layer`` is one of its layers, its head if any.

    DataParallel, Lightning modules and others keep the network in an attribute, and perhaps other
    things beside it: then its names have a prefix, and what does not have it is left out.
    torch.compile adds ``_orig_mod`` to a module wherever it stands. A head that was replaced by
    another single layer, for instance ``Sequential(Dropout, Linear)``, gets the name of the head.
    ValueError if it holds several networks.
    """
    state = {key.replace("_orig_mod.", ""): tensor for key, tensor in state.items()}
    prefix, given = _find(state, layer)
    own = {
        key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)
    }
    return {re.sub(rf"^{re.escape(given)}\.", f"{layer}.", key): own[key] for key in own}


def _find(state: StateDict, layer: str) -> tuple[str, str]:
    """The prefix of all names, and the name without it of the layer that stands for ``layer``.

    A head of ``classifier.1`` may have become ``classifier.1.1``, or ``classifier`` itself.
    """
    parts = layer.split(".")
    for place in (".".join(parts[:n]) for n in range(len(parts), 0, -1)):
        pattern = rf"(|.+?\.)({re.escape(place)}(?:\.\w+)*)\.weight"
        found = [match for key in state if (match := re.fullmatch(pattern, key))]
        if not found:
            continue
        prefix = min((match[1] for match in found), key=len)
        others = {match[1] for match in found if not match[1].startswith(prefix)}
        if others:
            names = ", ".join(sorted({prefix, *others}))
            raise ValueError(
                f"the checkpoint holds several networks, whose names begin with {names}: save the "
                'one that you mean with torch.save(model.state_dict(), "weights.pth")'
            )
        given = [match[2] for match in found if match[1] == prefix]
        return prefix, given[0] if len(given) == 1 else layer
    return "", layer
