"""What each precision's gate says of a checkpoint, beside what it does to photographs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from export.checkpoints import Loaded
from export.gate import DTYPES, emulated, gate_case, judge_precisions
from export.int8.judge import Array, Judged, judge
from export.int8.make import make, run_of
from export.int8.options import AGREEMENT
from export.int8.photos import Photo, Photos
from export.openvino import convert
from export.simplify import simplified
from export.untrained import example_input
from handlers.metadata import Spec


@dataclass(frozen=True)
class Row:
    """The gate's result of a precision, and what it does to photographs (``judge``)."""

    precision: str
    gate: Mapping[str, Any]
    photographs: Mapping[str, Any]

    @property
    def is_wrong(self) -> bool:
        """Whether the gate let a precision pass that changes answers."""
        return self.gate["passed"] and not self.photographs["passed"]


def rows(loaded: Loaded, photos: Photos) -> Iterator[Row]:
    """Each precision of a classifier beside eager PyTorch, on the judging half of ``photos``."""
    network, spec = loaded.network, loaded.spec
    simple = simplified(loaded.module, network.head)
    example = example_input(spec, 1, 64, 64)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        traced = torch.jit.trace(simple, example, check_trace=False)
    gates = judge_precisions(spec, gate_case(loaded), simple, traced, example)
    model = convert(traced, network, spec.crop or spec.resize)
    exact = _outputs("float32", loaded.module, spec, photos.judging)

    def row(precision: str, gate: Mapping[str, Any], outputs: Sequence[Array]) -> Row:
        judged = [
            Judged.of(spec, photo, before, after)
            for photo, before, after in zip(photos.judging, exact, outputs, strict=True)
        ]
        return Row(precision, gate, judge(spec, judged, AGREEMENT))

    yield row("float32", {"passed": True}, exact)
    for precision, dtype in DTYPES.items():
        outputs = _outputs(precision, emulated(simple, dtype), spec, photos.judging)
        yield row(precision, gates[precision], outputs)
    int8 = make(model, spec, photos, AGREEMENT, tqdm.write)
    run = run_of(int8.model)
    yield row("int8", int8.figures, [run(photo.input(spec)) for photo in photos.judging])


def _outputs(name: str, network: nn.Module, spec: Spec, photos: Sequence[Photo]) -> list[Array]:
    """``(1, classes) float32`` for each of ``photos``."""
    with torch.inference_mode():
        return [
            network(torch.from_numpy(photo.input(spec))).numpy()
            for photo in tqdm(photos, desc=name, unit=" photographs", leave=False)
        ]


def table(rows: Sequence[Row]) -> str:
    """``rows`` for the terminal."""
    head = ("gate", "agrees", "mean shift", "largest", "accuracy")
    lines = ["{:<10} {:<7} {:>7} {:>11} {:>8} {:>9}".format("", *head)]
    for row in rows:
        figures = row.photographs
        verdict = "passes" if row.gate["passed"] else "fails"
        lines.append(
            f"{row.precision:<10} {verdict:<7} {figures['agreement']:>7.1%} "
            f"{figures['mean_probability_shift']:>11.4f} "
            f"{figures['largest_probability_shift']:>8.4f} {figures['accuracy_int8']:>9.1%}"
        )
    return "\n".join(lines)
