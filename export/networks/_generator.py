"""The CycleGAN generator: ResNet with 9 residual blocks (Zhu et al. 2017, appendix 7.2)."""

from __future__ import annotations

import torch
from torch import nn

# c7s1-64, d128, d256, 9 x R256, u128, u64, c7s1-3 in the paper's notation.
WIDTH = 64
BLOCKS = 9


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with instance norm, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual: torch.Tensor = self.conv_block(x)
        return x + residual


class Generator(nn.Module):
    """``(N, 3, H, W) float32`` -> ``(N, 3, H, W)`` in [-1, 1]; H and W in multiples of 4.

    The module tree gives the state dict keys of the published checkpoints: ``model.1.weight``,
    ``model.10.conv_block.1.weight`` and so on, 11,378,179 parameters.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), *_conv_norm(nn.Conv2d(3, WIDTH, 7))]
        for width in (WIDTH, 2 * WIDTH):
            layers += _conv_norm(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1))
        layers += [ResidualBlock(4 * WIDTH) for _ in range(BLOCKS)]
        for width in (4 * WIDTH, 2 * WIDTH):
            layers += _conv_norm(
                nn.ConvTranspose2d(width, width // 2, 3, stride=2, padding=1, output_padding=1)
            )
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(WIDTH, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.model(x)
        return output


def _conv_norm(conv: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    return [conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU(inplace=True)]
