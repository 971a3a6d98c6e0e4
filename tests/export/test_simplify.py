"""The simplified network equals the original, in both memory layouts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from export.networks import registered
from export.simplify import CentredGroupNorm, simplified
from export.untrained import example_input


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("mean", [0.0, 5.0, 100.0])
def test_the_norm_keeps_its_digits_where_means_are_large(
    layout: torch.memory_format, mean: float
) -> None:
    x = torch.randn(2, 64, 64, 64, generator=torch.Generator().manual_seed(0)) + mean
    exact = nn.InstanceNorm2d(64)(x.double())
    output = CentredGroupNorm(64, 1e-5)(x.contiguous(memory_format=layout))
    assert output.shape == exact.shape
    assert (output - exact).abs().max() < 1e-6 * max(10 * mean, 10)


@pytest.mark.parametrize("name", registered())
def test_it_equals_the_network_without_its_norms(request: pytest.FixtureRequest, name: str) -> None:
    network: nn.Module = request.getfixturevalue(name)
    before = copy.deepcopy(network.state_dict())
    simple = simplified(network, registered()[name].head)
    kinds = {type(layer) for layer in simple.modules()}
    assert not kinds & {nn.BatchNorm2d, nn.InstanceNorm2d}
    x = example_input(registered()[name].spec(), 2, 64, 96, seed=3)
    with torch.inference_mode():
        expected, output = network(x), simple(x)
    assert (output - expected).abs().max() <= 1e-4 * expected.abs().max()
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[key]), "the network itself is untouched"
