"""Specification + weights -> module in eval mode."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import ResNet101_Weights, resnet101

from export import untrained
from export.errors import ExportError
from export.generator import Generator
from export.weights import default, fetch, published, sha256_of
from handlers.metadata import Spec
from handlers.specs import SPECS

StateDict = dict[str, torch.Tensor]

IMAGENET_LABELS = tuple(ResNet101_Weights.IMAGENET1K_V1.meta["categories"])

# Left by InstanceNorm2d of PyTorch before 0.4, which kept statistics that it never used.
_STALE_STATISTICS = re.compile(r"\.(running_mean|running_var|num_batches_tracked)$")


@dataclass(frozen=True)
class Network:
    """A module in eval mode, and what must travel with it.

    ``weights`` says where they came from: ``name`` (goes into the header x-model-weights),
    ``source``, ``sha256`` of the checkpoint file (None: untrained), ``licence``, ``trained``.
    """

    module: nn.Module
    spec: Spec
    weights: dict[str, Any]


def build(
    model: str,
    weights: str = "pretrained",
    *,
    variant: str | None = None,
    labels: Path | None = None,
    seed: int = 0,
) -> Network:
    """``model`` with ``weights``: pretrained, the name of a locked checkpoint, random, or a path.

    ``variant`` names the preprocessing of a user's own checkpoint (see ``handlers.specs``); a
    published one brings its own. Raises ExportError for whatever does not fit.
    """
    if weights == "random":
        module = untrained.build(model, len(IMAGENET_LABELS), seed)
        spec = _spec(model, variant)
        about = {"name": "untrained", "source": f"random, seed {seed}", "trained": False}
        about |= {"sha256": None, "licence": None}
    elif weights == "pretrained" or weights in published(model):
        entry = default(model) if weights == "pretrained" else published(model)[weights]
        if variant not in (None, entry.variant):
            raise ExportError(
                f"{model}: {entry.name} was trained with preprocessing {entry.variant}"
            )
        module = _load(model, fetch(entry))
        spec = _spec(model, entry.variant)
        about = _about(entry.name, entry.source, entry.sha256, entry.licence)
    else:
        path = Path(weights)
        if not path.is_file():
            choices = ", ".join(["pretrained", "random", *published(model)])
            raise ExportError(f"{model}: no checkpoint at {path} (a path, or one of {choices})")
        module = _load(model, path)
        spec = _spec(model, variant)
        about = _about(path.stem, path.name, sha256_of(path), None)
    if spec.output == "classes":
        head = module.get_submodule("fc")
        assert isinstance(head, nn.Linear)
        spec = dataclasses.replace(spec, labels=_labels(labels, head.out_features))
    return Network(module.eval().requires_grad_(False), spec, about)


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names in order: a JSON list, a JSON map from index to name, or text with one a line.

    TorchServe's own ``index_to_name.json``, whose values are ``[wordnet id, name]``, is such a map.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".json":
            return tuple(line.strip() for line in text.splitlines() if line.strip())
        found = json.loads(text)
        if isinstance(found, dict):
            if {int(index) for index in found} != set(range(len(found))):
                raise ExportError(f"{path}: the indices are not 0 to {len(found) - 1}")
            found = [found[index] for index in sorted(found, key=int)]
        if not isinstance(found, list):
            raise TypeError("neither a list nor a map")
        return tuple(_text(name[-1] if isinstance(name, list) else name) for name in found)
    except (OSError, ValueError, TypeError, IndexError) as error:
        raise ExportError(f"cannot read labels from {path}: {error}") from error


def _spec(model: str, variant: str | None) -> Spec:
    variants = SPECS[model]
    if variant is None:
        return next(iter(variants.values()))
    if variant not in variants:
        raise ExportError(f"{model}: preprocessing is one of {', '.join(variants)}, not {variant}")
    return variants[variant]


def _about(name: str, source: str, digest: str, licence: str | None) -> dict[str, Any]:
    # It becomes a response header: ASCII without spaces, whatever the file is called.
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name) + "-" + digest[:8]
    return {"name": name, "source": source, "trained": True, "sha256": digest, "licence": licence}


def _labels(path: Path | None, classes: int) -> tuple[str, ...]:
    if path is not None:
        labels = read_labels(path)
        if len(labels) != classes:
            raise ExportError(
                f"{path} has {len(labels)} labels; the checkpoint has {classes} classes"
            )
        return labels
    if classes == len(IMAGENET_LABELS):
        return IMAGENET_LABELS
    return tuple(f"class {i}" for i in range(classes))


def _load(model: str, path: Path) -> nn.Module:
    state = _read_state_dict(path)
    module: nn.Module
    if model == "resnet101":
        head = state.get("fc.weight")
        classes = len(head) if head is not None and head.ndim == 2 else len(IMAGENET_LABELS)
        with torch.device("meta"):  # no random numbers for what the checkpoint replaces
            module = resnet101(weights=None, num_classes=classes)
        # Checkpoints from before PyTorch 0.4.1 have no such counters, and inference has no use.
        counters = {
            key: torch.tensor(0)
            for key in module.state_dict()
            if key.endswith(".num_batches_tracked")
        }
        state = counters | state
    else:
        with torch.device("meta"):
            module = Generator()
        state = {_generator_key(k): v for k, v in state.items() if not _STALE_STATISTICS.search(k)}
    _check_fit(path, expected=module.state_dict(), given=state)
    module.load_state_dict(state, assign=True)
    return module.float()


def _read_state_dict(path: Path) -> StateDict:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes the unpickler raise anything
        why = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise ExportError(
            f"{path} is no checkpoint that can be loaded safely: save it with "
            f"torch.save(model.state_dict(), ...) ({why})"
        ) from error
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(
        isinstance(v, torch.Tensor) for v in found.values()
    ):
        raise ExportError(f"{path} holds no state dict, neither plain nor under 'state_dict'")
    state = {str(key): tensor for key, tensor in found.items()}
    if state and all(key.startswith("module.") for key in state):  # saved from DataParallel
        state = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    return state


def _generator_key(key: str) -> str:
    """The original code trained with dropout puts the block's second convolution one later."""
    return re.sub(r"\.conv_block\.6\.", ".conv_block.5.", key)


def _check_fit(path: Path, *, expected: StateDict, given: StateDict) -> None:
    problems = [f"missing    {key}" for key in expected if key not in given]
    problems += [f"unexpected {key}" for key in given if key not in expected]
    for key in (key for key in expected if key in given):
        if expected[key].shape != given[key].shape:
            shapes = f"{tuple(given[key].shape)}, not {tuple(expected[key].shape)}"
            problems.append(f"misshapen  {key}: {shapes}")
        elif not given[key].isfinite().all():
            problems.append(f"not finite {key}")
    if problems:
        shown = "".join(f"\n  {problem}" for problem in problems[:8])
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise ExportError(f"{path} does not fit this network:{shown}{more}")


def _text(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no name")
    return name
