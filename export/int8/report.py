"""The result of the int8 gate for a person: a table, and a picture (``run/int8-NAME.png``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from export.int8.judge import NETWORKS, Judged
from handlers.metadata import Spec

SHOWN = 6
BINS = 10
# A difference of this many 8-bit steps is white in the picture of differences.
WHITE = 32


def table(figures: Mapping[str, Any]) -> str:
    """The figures of ``judge``, one a line."""
    rows = {"photographs judged": f"{figures['photographs']}"}
    if "agreement" in figures:
        limit = f"at least {figures['agreement_limit']:.1%}"
        rows["same first class as float32"] = f"{figures['agreement']:.1%}  ({limit})"
        rows["shift of a probability, mean"] = f"{figures['mean_probability_shift']:.4f}"
        rows["shift of a probability, largest"] = f"{figures['largest_probability_shift']:.4f}"
        if "accuracy_int8" in figures:
            rows["accuracy in float32"] = f"{figures['accuracy_float32']:.1%}"
            rows["accuracy in int8"] = f"{figures['accuracy_int8']:.1%}"
    else:
        rows["difference in 8-bit steps, mean"] = (
            f"{figures['picture_steps']:.2f}  (at most {figures['picture_steps_limit']:g})"
        )
        rows["difference, worst photograph"] = f"{figures['worst_picture_steps']:.2f}"
        rows["SSIM, mean"] = f"{figures['ssim']:.4f}  (at least {figures['ssim_limit']:g})"
        rows["SSIM, worst photograph"] = f"{figures['worst_ssim']:.4f}"
    rows["int8"] = "passes" if figures["passed"] else "fails: it is not in the file"
    return "\n".join(f"  {name:<34} {value}" for name, value in rows.items())


def draw(spec: Spec, judged: Sequence[Judged], figures: Mapping[str, Any], path: Path) -> None:
    """A PNG: how int8 compares with float32, and the photographs that differ most."""
    worst = sorted(judged, key=lambda one: one.shift, reverse=True)[:SHOWN]
    figure = (_classes if spec.output == "classes" else _pictures)(spec, judged, worst)
    figure.suptitle(f"{spec.name} in int8: {figures['summary']}", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _classes(spec: Spec, judged: Sequence[Judged], worst: Sequence[Judged]) -> Figure:
    figure = Figure(figsize=(12, 6.5), layout="constrained")
    left, right = np.asarray(figure.subfigures(1, 2, width_ratios=(1, 1.4)))
    axes = left.subplots()
    if any(one.photo.file.label is not None for one in judged):
        _reliability(axes, spec, judged)
    else:
        _probabilities(axes, judged)
    right.suptitle("largest shift of a probability", fontsize=9)
    for one, cell in zip(worst, right.subplots(2, SHOWN // 2).flat, strict=False):
        cell.imshow(one.photo.pixels)
        before, after = one.exact.argmax(), one.int8.argmax()
        cell.set_title(
            f"{spec.labels[before]} {one.exact[before]:.2f}\n-> "
            f"{spec.labels[after]} {one.int8[after]:.2f}",
            fontsize=7,
        )
        cell.set_axis_off()
    return figure


def _reliability(axes: Axes, spec: Spec, judged: Sequence[Judged]) -> None:
    """How often the first class is right, by its probability (Guo et al. 2017)."""
    labelled = [one for one in judged if one.photo.file.label is not None]
    for name in NETWORKS:
        right = np.array([one.is_right(spec, name) for one in labelled])
        sure = np.array([one.probabilities(name).max() for one in labelled])
        bins = np.minimum((sure * BINS).astype(int), BINS - 1)
        filled = [b for b in range(BINS) if (bins == b).any()]
        axes.plot(
            [sure[bins == b].mean() for b in filled],
            [right[bins == b].mean() for b in filled],
            "o-",
            label=f"{name}, {right.mean():.1%} right",
        )
    axes.plot([0, 1], [0, 1], "k:", linewidth=1, label="calibrated")
    axes.set(title="reliability", xlabel="probability of the first class", ylabel="share right")
    axes.legend(fontsize=8)


def _probabilities(axes: Axes, judged: Sequence[Judged]) -> None:
    """The probability of float32's first class in both, a point for each photograph."""
    firsts = [one.exact.argmax() for one in judged]
    before = [one.exact[first] for one, first in zip(judged, firsts, strict=True)]
    after = [one.int8[first] for one, first in zip(judged, firsts, strict=True)]
    axes.plot([0, 1], [0, 1], "k:", linewidth=1)
    axes.plot(before, after, ".")
    axes.set(title="probability of float32's first class", xlabel="float32", ylabel="int8")


def _pictures(_: Spec, judged: Sequence[Judged], worst: Sequence[Judged]) -> Figure:
    rows = worst[: SHOWN // 2]
    figure = Figure(figsize=(12, 2.6 * len(rows) + 0.6), layout="constrained")
    for one, cells in zip(rows, figure.subplots(len(rows), 4, squeeze=False), strict=True):
        difference = np.abs(one.int8.astype(np.int16) - one.exact) * (255 // WHITE)
        shown: dict[str, npt.NDArray[Any]] = {
            "photograph": one.photo.pixels,
            "float32": one.exact,
            "int8": one.int8,
            f"difference, {one.shift:.2f} steps on average": difference.clip(0, 255),
        }
        for cell, (title, pixels) in zip(cells, shown.items(), strict=True):
            cell.imshow(pixels)
            cell.set_title(title, fontsize=8)
            cell.set_axis_off()
    return figure
