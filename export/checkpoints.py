"""A network and its weights -> a module in eval mode, with its specification."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from export.errors import ExportError, WeightsUnavailable
from export.fit import Misfit, fill
from export.labels import read_labels
from export.layer_names import listed, renamed
from export.networks import Checkpoint, Network
from export.recognise import advice
from export.state_dicts import Contents, read
from export.weights import fetch, sha256_of
from handlers.metadata import Spec, Weights


@dataclass(frozen=True)
class Loaded:
    """A module in eval mode, and what travels with it.

    ``note`` says which names of a user's checkpoint were changed or left out.
    """

    network: Network
    module: nn.Module
    spec: Spec
    weights: Weights
    note: str = ""

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Eager PyTorch's output; ExportError if the module fails."""
        task = f"the network fails on an input of shape {tuple(inputs.shape)}"
        with _explained(f"{self.spec.name}: {task}"), torch.no_grad():
            output: torch.Tensor = self.module(inputs)
        return output


def load(
    network: Network,
    weights: str = "pretrained",
    *,
    variant: str | None = None,
    labels: Path | None = None,
    seed: int = 0,
) -> Loaded:
    """``network`` with ``weights``: pretrained, random, the name of a published one, or a path.

    ``variant`` names the preprocessing of a user's own checkpoint; a published one brings its own.
    ``labels`` is a file of class names. Raises ExportError for whatever does not fit.
    """
    if variant not in (None, *network.variants):
        choices = ", ".join(network.variants)
        raise ExportError(f"{network.name}: preprocessing must be one of {choices}, not {variant}")
    if labels and network.output != "classes":
        raise ExportError(f"{network.name} has no classes, so it takes no labels")
    if weights == "random":
        spec = network.spec(variant, _labels(network, labels))
        about = Weights("untrained", f"random, seed {seed}", False, None, None)
        return Loaded(network, untrained(network, spec, seed), _answered(spec), about)
    if weights == "pretrained":
        weights = _default(network)
    if checkpoint := network.checkpoints.get(weights):
        if variant not in (None, checkpoint.variant):
            raise ExportError(
                f"{network.name}: {weights} was trained with preprocessing {checkpoint.variant}"
            )
        path, variant = _fetch(network, checkpoint), checkpoint.variant
        name, source, licence = weights, checkpoint.source, checkpoint.licence
    else:
        path = Path(weights)
        if not path.is_file():
            choices = ", ".join(["pretrained", "random", *network.checkpoints])
            raise ExportError(
                f"{network.name}: no checkpoint at {path} (a path, or one of {choices})"
            )
        name, source, licence = path.stem, path.name, None
    contents = read(path)
    try:
        names = renamed(contents.state, network.head, lambda: _names(network))
        state = network.repair(names.state)
    except ValueError as error:
        raise ExportError(f"{path}: {error}") from error
    head = state.get(f"{network.head}.weight")
    classes = len(head) if head is not None and head.ndim > 1 else None
    spec = network.spec(variant, _labels(network, None, classes))
    with torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        module = _build(network, spec)
    notes = [names.note] if names.note else []
    if head is None:
        module = _without_head(network, module)
    elif f"{network.head}.bias" not in state:
        module.get_submodule(network.head).register_parameter("bias", None)
        notes.append(f"{network.head} without bias")
    try:
        module = _without_head(network, fill(module, state))
    except Misfit as misfit:
        known = advice(network, contents.state, path, labels) if misfit.other_layers else None
        reason = f"{network.name}: {known}" if known else f"this network:{misfit}"
        raise ExportError(f"{path} does not fit {reason}") from misfit
    if names.needed:
        raise ExportError(
            f"{path}: {network.name} would take the names that begin with {names.prefix} and "
            f"leave out {listed(names.needed)}, which may change the answers: save the network "
            f'alone with torch.save(model.{names.prefix}state_dict(), "weights.pth"), or describe '
            "the whole in a file, as docs/your-model.md shows"
        )
    spec = dataclasses.replace(spec, labels=_labels(network, labels, classes, contents))
    digest = sha256_of(path)
    about = Weights(_header_value(name, digest), source, True, digest, licence)
    return Loaded(network, module, _answered(spec), about, ", ".join(notes))


def untrained(network: Network, spec: Spec | None = None, seed: int = 0) -> nn.Module:
    """``network`` in eval mode with random weights: the same seed gives the same weights."""
    spec = spec or network.spec()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        module = _build(network, spec)
        with _explained(f"{network.name}: untrained() failed"):
            network.untrained(module, spec)
    return _without_head(network, module.eval().requires_grad_(False))


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn any error of a network's own code, which may be a user's, into an ExportError."""
    try:
        yield
    except Exception as error:
        raise ExportError(f"{what}: {type(error).__name__}: {error}") from error


def _build(network: Network, spec: Spec) -> nn.Module:
    with _explained(f"{network.name}: build() failed"):
        module: object = network.build(spec)
    if not isinstance(module, nn.Module):
        raise ExportError(f"{network.name}: build() gave {type(module).__name__}, not an nn.Module")
    last = dict(module.named_modules()).get(network.head)
    if network.head and not isinstance(last, (nn.Linear, nn.Conv2d)):
        raise ExportError(
            f"{network.name}: its head {network.head!r} is not an nn.Linear or Conv2d"
        )
    return module


def _names(network: Network) -> list[str]:
    with torch.random.fork_rng(devices=[]):
        return [*_build(network, network.spec()).state_dict()]


def _without_head(network: Network, module: nn.Module) -> nn.Module:
    """``module``, without its last layer if the features before it are wanted."""
    if network.output == "features" and network.head:
        module.set_submodule(network.head, nn.Identity())
    return module


def _answered(spec: Spec) -> Spec:
    """``spec`` without the labels if only the head that was taken out needed them."""
    return spec if spec.output == "classes" else dataclasses.replace(spec, labels=())


def _default(network: Network) -> str:
    """The name of the checkpoint that ``pretrained`` means."""
    if not network.checkpoints:
        raise ExportError(
            f"{network.name} has no published checkpoint: "
            f"{network.command} WEIGHTS=PATH, or WEIGHTS=random"
        )
    return next(iter(network.checkpoints))


def _fetch(network: Network, checkpoint: Checkpoint) -> Path:
    try:
        return fetch(checkpoint.download)
    except WeightsUnavailable as error:
        export = network.command
        raise WeightsUnavailable(
            f"{network.name}: {error}, or\n"
            f"               use your own checkpoint:   {export} WEIGHTS=PATH, or\n"
            f"               try it untrained:          {export} WEIGHTS=random"
        ) from error


def _header_value(name: str, digest: str) -> str:
    """A name of the weights for a response header: ASCII without spaces."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name) + "-" + digest[:8]


def _labels(
    network: Network,
    path: Path | None,
    classes: int | None = None,
    contents: Contents | None = None,
) -> tuple[str, ...]:
    """Names for ``classes`` classes; None if the weights do not say how many there are.

    From the file at ``path``, else those in the checkpoint, else the network's own. If the answer
    has no classes, only their number counts.
    """
    if not network.head:
        return ()
    labels: tuple[str, ...] = ()
    if path:
        labels = read_labels(path)
    elif contents and network.output == "classes":
        labels = contents.labels()
    if labels:
        if classes is not None and len(labels) != classes:
            given = path or "the list inside the checkpoint"
            raise ExportError(
                f"{given} has {len(labels)} labels; the checkpoint has {classes} classes"
            )
        return labels
    if classes is None or classes == len(network.labels):
        return network.labels
    return tuple(f"class {i}" for i in range(classes))
