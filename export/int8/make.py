"""A float32 network and a folder's photographs -> the network in int8, and the gate's result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openvino as ov
from tqdm import tqdm

from export.artefact import append, append_model
from export.checkpoints import Loaded
from export.errors import ExportError
from export.int8 import report
from export.int8.judge import Array, Judged, Run, compare, judge
from export.int8.options import Int8Inputs
from export.int8.photos import Photos, listed
from export.int8.quantize import quantize
from export.openvino import convert
from export.trace import Traced
from handlers.metadata import Spec
from handlers.network.openvino import core

RUN = Path("run")


@dataclass(frozen=True)
class Int8:
    """``figures`` is the gate's result; ``judged`` has each photograph that it is about."""

    model: ov.Model
    judged: Sequence[Judged]
    figures: dict[str, Any]


def add(
    loaded: Loaded,
    traced: Traced,
    inputs: Int8Inputs,
    pt: Path,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """Append the network in int8 to ``pt`` if it passes the gate; returns the gate's result.

    Draws ``run/int8-NAME.png``.
    """
    spec, photos = loaded.spec, inputs.photos
    if photos.unreadable:
        progress(f"{len(photos.unreadable)} files cannot be read: {listed(photos.unreadable)}")
    counts = f"{len(photos.calibration)} photographs calibrate, {len(photos.judging)} judge"
    progress(f"quantizing to int8: {counts}")
    try:
        model = convert(traced.script, loaded.network, spec.crop or spec.resize)
    except ExportError as error:
        return {"passed": False, "summary": str(error)}
    int8 = make(model, spec, photos, inputs.options.agreement, progress)
    for line in report.table(int8.figures).splitlines():
        progress(line)
    picture = RUN / f"int8-{spec.name}.png"
    report.draw(spec, int8.judged, int8.figures, picture)
    progress(f"picture {picture}")
    if int8.figures["passed"]:
        output = run_of(int8.model)(traced.golden.input.numpy())
        append(pt, {"int8_output.f32": output.astype("<f4").tobytes()})
        append_model(pt, "int8", int8.model)
    return int8.figures


def make(
    model: ov.Model,
    spec: Spec,
    photos: Photos,
    agreement: float,
    progress: Callable[[str], None] = lambda _: None,
) -> Int8:
    """Quantize ``model``, float32, on one half of ``photos``, and judge it on the other."""
    reduced = quantize(model, spec, photos.calibration, agreement, progress)
    judging = tqdm(photos.judging, desc="judging", unit=" photographs", leave=False)
    judged = compare(spec, judging, run_of(model), run_of(reduced))
    return Int8(reduced, judged, judge(spec, judged, agreement))


def run_of(model: ov.Model) -> Run:
    """``model`` on this machine's CPU. What is not int8 is float32, as when served."""
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(batch: Array) -> Array:
        output: Array = compiled(batch)[0]
        return output

    return run
