"""Untrained networks answer like trained ones: differently to each picture, and in range."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from export.checkpoints import untrained
from export.networks import registered
from export.simplify import simplified
from handlers.pictures.resample import resample
from tests.tensors import to_tensor

pytestmark = pytest.mark.slow

# By network: the output for each photograph, and every module whose activations were not finite.
Answers = dict[str, tuple[list[torch.Tensor], list[str]]]


@pytest.fixture(scope="module")
def answers(
    resnet101: nn.Module, cyclegan: nn.Module, photographs: dict[str, Image.Image]
) -> Answers:
    pictures = list(photographs.values())
    modules = {"resnet101": resnet101, "cyclegan": cyclegan}
    return {
        name: _answers(module, [_to_input(name, picture) for picture in pictures])
        for name, module in modules.items()
    }


def _to_input(name: str, picture: Image.Image) -> torch.Tensor:
    spec = registered()[name].spec()
    return to_tensor(spec, resample(spec, picture))


def _answers(
    network: nn.Module, inputs: list[torch.Tensor]
) -> tuple[list[torch.Tensor], list[str]]:
    broken: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        return lambda _module, _input, output: (
            None if output.isfinite().all() else broken.append(name)
        )

    hooks = [module.register_forward_hook(watch(name)) for name, module in network.named_modules()]
    with torch.inference_mode():
        outputs = [network(x[None])[0] for x in inputs]
    for hook in hooks:
        hook.remove()
    return outputs, broken


@pytest.mark.parametrize("name", registered())
def test_same_seed_same_weights_whatever_ran_before(
    name: str, model_store: Path, request: pytest.FixtureRequest
) -> None:
    """The export built the networks in another process, with another random state."""
    exported = torch.jit.load(model_store / f"{name}.pt").state_dict()
    network = simplified(request.getfixturevalue(name), registered()[name].head)
    for key, tensor in exported.items():
        torch.testing.assert_close(tensor, network.state_dict()[key])


def test_other_seed_other_weights(cyclegan: nn.Module) -> None:
    random_state = torch.get_rng_state()
    other = untrained(registered()["cyclegan"], seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), random_state), "the caller's random numbers changed"
    key, first = next(iter(cyclegan.state_dict().items()))
    assert not torch.allclose(first, other[key])


@pytest.mark.parametrize("name", registered())
def test_activations_are_finite(name: str, answers: Answers) -> None:
    _, broken = answers[name]
    assert broken == []


def test_batch_norm_is_calibrated(
    resnet101: nn.Module, photographs: dict[str, Image.Image]
) -> None:
    """Without calibration the spread shrinks from block to block, to 0.15 in places."""
    spread: list[float] = []
    hooks = [
        module.register_forward_hook(lambda _module, _input, y: spread.append(y.std().item()))
        for name, module in resnet101.named_modules()
        if isinstance(module, nn.BatchNorm2d) and name.endswith(("bn1", "bn2"))
    ]
    with torch.inference_mode():
        for photograph in photographs.values():
            resnet101(_to_input("resnet101", photograph)[None])
    for hook in hooks:
        hook.remove()
    assert len(spread) == 3 * len(hooks)
    assert min(spread) > 0.5
    assert max(spread) < 5


def test_probabilities_are_neither_flat_nor_saturated(answers: Answers) -> None:
    for logits in answers["resnet101"][0]:
        assert 0.01 < logits.softmax(0).max() < 0.9


def test_different_photographs_have_different_classes(answers: Answers) -> None:
    """The distributions of a freshly initialised network hardly differ."""
    probabilities = [logits.softmax(0) for logits in answers["resnet101"][0]]
    for one, other in combinations(probabilities, 2):
        assert (one - other).abs().sum() / 2 > 0.2  # total variation distance, at most 1


def test_pictures_use_their_range(answers: Answers) -> None:
    for picture in answers["cyclegan"][0]:
        assert picture.std() > 0.05
        assert (picture.abs() > 0.99).float().mean() < 0.2


def test_pictures_depend_on_the_photograph(answers: Answers) -> None:
    corners = [picture[:, :256, :256] for picture in answers["cyclegan"][0]]
    for one, other in combinations(corners, 2):
        assert (one - other).abs().mean() > 0.05
