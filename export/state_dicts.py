"""A checkpoint file -> the state dict in it, and the class names beside it. No code in it runs."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from export.errors import ExportError
from export.labels import in_order
from export.network import StateDict

# If a file holds several state dicts, one of these is what training goes on with.
_USUAL = ("state_dict", "model_state_dict", "model", "net")
# What torchvision.datasets.ImageFolder calls its names.
_LABELS = ("class_to_idx", "classes")


@dataclass(frozen=True)
class Contents:
    """``named`` has the entries beside the state dict that may be class names, as they are."""

    path: Path
    state: StateDict
    named: Mapping[str, object] = field(default_factory=dict)

    def labels(self) -> tuple[str, ...]:
        """The class names in order; empty if the file has none. ExportError if they are broken."""
        for name, entry in self.named.items():
            if isinstance(entry, int):  # how many there are
                continue
            try:
                labels = in_order(entry)
            except (ValueError, TypeError) as error:
                raise ExportError(
                    f"{self.path}: its {name} gives no class names ({error}): "
                    "name the classes with LABELS=FILE"
                ) from error
            if labels:
                return labels
        return ()


def read(path: Path) -> Contents:
    """The contents of a ``.safetensors`` file, or of any other as ``torch.save`` writes it.

    The state dict is the file's whole content, or an entry of it. ExportError if there is none.
    """
    if path.suffix == ".safetensors":
        try:
            # Copied, because in the file's memory map tensors stand at any address: oneDNN then
            # takes other kernels.
            state = {key: tensor.clone() for key, tensor in load_file(path).items()}
            return Contents(path, state)
        except SafetensorError as error:
            raise ExportError(f"{path} is not a safetensors file: {error}") from error
    content = _load(path)
    if not isinstance(content, Mapping):
        content = {}
    if _is_state_dict(content):
        return Contents(path, _plain(content))
    found = {name: entry for name, entry in content.items() if _is_state_dict(entry)}
    usual = [name for name in _USUAL if name in found]
    if not found:
        raise ExportError(f"{path} contains no state dict, neither plain nor as one of its entries")
    if len(found) > 1 and not usual:
        raise ExportError(
            f"{path} contains {len(found)} state dicts: {', '.join(map(str, found))}; save the one "
            f'that you mean: torch.save(torch.load("{path.name}")[NAME], "weights.pth")'
        )
    name = next(iter(usual or found))
    named = {key: content[key] for key in _LABELS if content.get(key) is not None}
    return Contents(path, _plain(found[name]), named)


def _is_state_dict(content: object) -> TypeGuard[Mapping[object, torch.Tensor]]:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(value, torch.Tensor) for value in content.values())
    )


def _plain(state: Mapping[object, torch.Tensor]) -> StateDict:
    return {str(key): tensor for key, tensor in state.items()}


def _load(path: Path) -> object:
    try:
        # torchvision's and timm's training scripts save their arguments as a Namespace.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            # _refusal says so, with the fix.
            warnings.filterwarnings("ignore", ".*looks like a TorchScript archive", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file makes the unpickler raise anything
        raise ExportError(_refusal(path, str(error) or type(error).__name__)) from error


def _refusal(path: Path, why: str) -> str:
    """One sentence with the fix."""
    save = 'torch.save(model.state_dict(), "weights.pth")'
    if "TorchScript archives" in why:
        load = f'model = torch.jit.load("{path.name}")'
        return f"{path} is TorchScript, not a checkpoint: take its weights with {load}; {save}"
    foreign = re.search(r"GLOBAL ([\w.]+)", why)
    if foreign is None:
        reason = why.splitlines()[0][:120]
    elif _holds_module(path):
        return (
            f"{path} holds a whole pickled module ({foreign[1]}), which could run code when it is "
            f"loaded: in your notebook, save the weights alone with {save}"
        )
    else:
        reason = f"it holds a {foreign[1]}, which is not loaded"
    return f"{path} is not a checkpoint that can be loaded safely: save it with {save} ({reason})"


def _holds_module(path: Path) -> bool:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # noqa: BLE001  a file from before PyTorch 1.6, or a broken one
        return False
    return any(name.startswith("torch.nn.modules.") for name in names)
