"""The same network with less to compute at inference: this is traced, and proved equal.

Batch norms are folded into the convolutions before them: one rounding fewer per layer where weights
are reduced in precision, and nothing left to fold at each load. Instance norms become group norms.
A classifier's pooling and linear layers stay in float32 when the rest is reduced.
"""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class CentredGroupNorm(nn.Module):
    """InstanceNorm2d without parameters, several times as fast where channels come last.

    Group norm with one group per channel is instance norm, and has kernels for channels-last. Those
    take the variance as E[x^2] - E[x]^2, which loses digits where a channel's mean is large beside
    its deviation; of centred channels there is nothing to lose. ``python -m benchmarks.norm``
    prints times and errors.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(N, C, H, W)`` -> the same, with mean 0 and deviation 1 in each picture's channels."""
        centred = x - x.mean((2, 3), keepdim=True)
        return F.group_norm(centred, self.channels, eps=self.eps)


class InFloat32(nn.Module):
    """A layer that computes in float32 in a network of reduced precision.

    bfloat16 has 8 significant bits: two logits that differ by less than 1 in 256 become equal, and
    classes then tie. Pooling and the last layer are a thousandth of a classifier's work. Whoever
    reduces the network's parameters must leave those below this module as they are;
    ``handlers.network`` finds it by its class's name, which TorchScript keeps.
    """

    def __init__(self, layer: nn.AdaptiveAvgPool2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` of any floating-point type -> the layer's output, float32."""
        output: torch.Tensor = self.layer(x.float())
        return output


def simplified(module: nn.Module) -> nn.Module:
    """A copy of ``module``, in eval mode, that gives the same and computes less.

    A batch norm counts as its convolution's where it is the next child of the same parent, as in
    torchvision's ResNets; the proof of the trace would tell if that were wrong.
    """
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for (name, layer), (next_name, following) in pairwise(list(parent.named_children())):
            if isinstance(layer, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(layer, following))
                setattr(parent, next_name, nn.Identity())
        for name, layer in parent.named_children():
            if isinstance(layer, nn.InstanceNorm2d):
                setattr(parent, name, CentredGroupNorm(layer.num_features, layer.eps))
            elif isinstance(layer, (nn.AdaptiveAvgPool2d, nn.Linear)):
                setattr(parent, name, InFloat32(layer))
    return module.requires_grad_(False)
