"""A state dict into a module, or what keeps it out."""

from __future__ import annotations

import torch
from torch import nn

from export.network import StateDict

# Checkpoints saved before PyTorch 0.4.1 lack batch norm's counters; inference does not use them.
COUNTER = ".num_batches_tracked"


class Misfit(Exception):
    """``problems`` has a line for each difference, in the order of the network's layers.

    ``other_layers``: names or shapes differ, not only values.
    """

    def __init__(self, problems: list[str], *, other_layers: bool) -> None:
        shown = "".join(f"\n  {problem}" for problem in problems[:8])
        more = f"\n  and {len(problems) - 8} more" if len(problems) > 8 else ""
        super().__init__(shown + more)
        self.other_layers = other_layers


def fill(module: nn.Module, state: StateDict) -> nn.Module:
    """``module`` in eval mode with the weights in ``state``; Misfit if they do not fit."""
    expected = module.state_dict()
    state = {key: torch.tensor(0) for key in expected if key.endswith(COUNTER)} | state
    _check(expected=expected, given=state)
    # Weights of a channels-last module have another order in memory than OpenVINO's, which would
    # then be stored beside them.
    module.load_state_dict({key: tensor.contiguous() for key, tensor in state.items()}, assign=True)
    return module.float().eval().requires_grad_(False)


def _check(*, expected: StateDict, given: StateDict) -> None:
    problems = [f"missing    {key}" for key in expected if key not in given]
    problems += [f"unexpected {key}" for key in given if key not in expected]
    wrong_values = []
    for key in (key for key in expected if key in given):
        if expected[key].shape != given[key].shape:
            shapes = f"{tuple(given[key].shape)}, not {tuple(expected[key].shape)}"
            problems.append(f"misshapen  {key}: {shapes}")
        elif expected[key].is_floating_point() and not given[key].is_floating_point():
            wrong_values.append(f"not float  {key}: {given[key].dtype}")
        elif not given[key].isfinite().all():
            wrong_values.append(f"not finite {key}")
    if problems or wrong_values:
        raise Misfit(problems + wrong_values, other_layers=bool(problems))
