"""The same network with less to compute at inference: this is traced, and proved equal.

Batch norms are folded into the convolutions before them: one rounding fewer per layer in reduced
precision, and nothing left to fold when the model loads. Instance norms become group norms. A
classifier's last layers stay in float32 when the rest is reduced.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.errors import ExportError


class CentredGroupNorm(nn.Module):
    """InstanceNorm2d without parameters, several times as fast on channels-last tensors.

    Group norm with one group per channel is instance norm, and has channels-last kernels. They
    compute the variance as E[x^2] - E[x]^2, which loses digits if a channel's mean is much larger
    than its deviation; centring the channels first avoids that.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, C, H, W)`` -> the same, with mean 0 and deviation 1 in each picture's channels."""
        centred = x - x.mean((2, 3), keepdim=True)
        return F.group_norm(centred, self.channels, eps=self.eps)


class InFloat32(nn.Module):
    """A layer that computes in float32 within a network of reduced precision.

    bfloat16 has 8 significant bits: two logits that differ by less than 1 in 256 become equal, so
    classes tie. The last layers are a small part of a classifier's work. Code that converts the
    network's parameters must leave those of this module alone; ``handlers.network`` recognises it
    by its class name, which TorchScript keeps.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` of any floating-point type -> the layer's output, float32."""
        output: torch.Tensor = self.layer(x.float())
        return output


def simplified(module: nn.Module, head: str = "") -> nn.Module:
    """A copy of ``module``, in eval mode, that computes less.

    ``head`` names a classifier's last layer. A batch norm is folded into a convolution if it is the
    next child of the same parent. Callers check that the copy still gives the same: a network may
    use its layers in another order than it defines them. Raises ExportError if ``module`` cannot be
    copied, and whatever the replacement of its layers raises.
    """
    try:
        module = copy.deepcopy(module)
    except Exception as error:  # the module is the user's: it may raise anything
        raise ExportError(f"the network cannot be copied by copy.deepcopy: {error}") from error
    for parent in list(module.modules()):
        for (name, layer), (next_name, following) in pairwise(list(parent.named_children())):
            if (
                isinstance(layer, nn.Conv2d)
                and isinstance(following, nn.BatchNorm2d)
                and layer.out_channels == following.num_features
            ):
                setattr(parent, name, fuse_conv_bn_eval(layer, following))
                setattr(parent, next_name, nn.Identity())
        for name, layer in parent.named_children():
            if isinstance(layer, nn.InstanceNorm2d) and not layer.state_dict():
                setattr(parent, name, CentredGroupNorm(layer.num_features, layer.eps))
    for name in _tail(module, head) if head else ():
        module.set_submodule(name, InFloat32(module.get_submodule(name)))
    return module.requires_grad_(False)


def _tail(module: nn.Module, head: str) -> list[str]:
    """Names of the layers to keep in float32: the head, and all from the global pooling to it.

    A layer with parameters between the two would fail on a float32 input if it were reduced.
    Without global pooling it is the head alone.
    """
    leaves = [name for name, layer in module.named_modules() if not list(layer.children())]
    poolings = [
        i
        for i, name in enumerate(leaves)
        if isinstance(layer := module.get_submodule(name), nn.AdaptiveAvgPool2d)
        and layer.output_size in (1, (1, 1))
    ]
    first = poolings[-1] if poolings else len(leaves)
    return [
        name
        for i, name in enumerate(leaves)
        if name == head
        or (i >= first and (i == first or list(module.get_submodule(name).parameters())))
    ]
