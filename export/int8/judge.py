"""int8 beside float32 on photographs that it was not calibrated on, and whether that is enough."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from skimage.metrics import structural_similarity

from export.gate import PICTURE_STEPS
from export.int8.photos import Photo
from handlers.metadata import Spec
from handlers.tasks.translate import to_image

# Output pictures have the limit of the other precisions, and one for the mean structural similarity
# (Wang et al. 2004).
PICTURE_SSIM = 0.98

Array = npt.NDArray[np.float32]
Network = Literal["float32", "int8"]
NETWORKS: tuple[Network, ...] = ("float32", "int8")
# One network: (1, 3, H, W) float32 -> (1, ...) float32.
Run = Callable[[Array], Array]


@dataclass(frozen=True)
class Judged:
    """One photograph with both outputs, ``(classes,)`` probabilities or ``(H, W, 3) uint8``.

    ``shift`` is the largest difference of a probability, or the mean difference in 8-bit steps.
    """

    photo: Photo
    exact: npt.NDArray[Any]
    int8: npt.NDArray[Any]
    shift: float

    @classmethod
    def of(cls, spec: Spec, photo: Photo, exact: Array, int8: Array) -> Judged:
        """From the outputs of both networks, ``(1, ...) float32``."""
        before, after = answer(spec, exact), answer(spec, int8)
        difference = np.abs(after.astype(np.float32) - before)
        shift = difference.max() if spec.output == "classes" else difference.mean()
        return cls(photo, before, after, float(shift))

    def probabilities(self, network: Network) -> npt.NDArray[Any]:
        return self.exact if network == "float32" else self.int8

    def is_right(self, spec: Spec, network: Network) -> bool:
        """Whether the first class is the photograph's label."""
        return spec.labels[self.probabilities(network).argmax()] == self.photo.file.label


def compare(spec: Spec, photos: Iterable[Photo], exact: Run, int8: Run) -> list[Judged]:
    """Run both networks on each of ``photos``."""
    inputs = ((photo, photo.input(spec)) for photo in photos)
    return [Judged.of(spec, photo, exact(batch), int8(batch)) for photo, batch in inputs]


def judge(spec: Spec, judged: Sequence[Judged], agreement: float) -> dict[str, Any]:
    """The gate's result, ``{"passed": bool, "summary": str, ...}``, as those of other precisions.

    ``agreement`` is the limit of a classifier.
    """
    if spec.output == "classes":
        return _judge_classes(spec, judged, agreement)
    return _judge_pictures(judged)


def agreement_of(judged: Sequence[Judged]) -> float:
    """The share of photographs whose first class is the same in both networks."""
    return statistics.mean(float(one.exact.argmax() == one.int8.argmax()) for one in judged)


def _judge_classes(spec: Spec, judged: Sequence[Judged], limit: float) -> dict[str, Any]:
    agreement = agreement_of(judged)
    shifts = [one.shift for one in judged]
    figures: dict[str, Any] = {
        "photographs": len(judged),
        "agreement": agreement,
        "agreement_limit": limit,
        "mean_probability_shift": statistics.mean(shifts),
        "largest_probability_shift": max(shifts),
    }
    if labelled := [one for one in judged if one.photo.file.label is not None]:
        for name in NETWORKS:
            right = [one.is_right(spec, name) for one in labelled]
            figures[f"accuracy_{name}"] = statistics.mean(map(float, right))
    return figures | {
        "passed": agreement >= limit,
        "summary": f"the first class is float32's on {agreement:.1%} of {len(judged)} "
        f"photographs (limit {limit:.1%})",
    }


def _judge_pictures(judged: Sequence[Judged]) -> dict[str, Any]:
    steps = [one.shift for one in judged]
    similar = [float(structural_similarity(one.exact, one.int8, channel_axis=2)) for one in judged]
    mean, ssim = statistics.mean(steps), statistics.mean(similar)
    return {
        "photographs": len(judged),
        "picture_steps": mean,
        "picture_steps_limit": PICTURE_STEPS,
        "worst_picture_steps": max(steps),
        "ssim": ssim,
        "ssim_limit": PICTURE_SSIM,
        "worst_ssim": min(similar),
        "passed": mean <= PICTURE_STEPS and ssim >= PICTURE_SSIM,
        "summary": f"pictures differ by {mean:.2g}/255 on average (limit {PICTURE_STEPS:g}), "
        f"SSIM {ssim:.3f} (limit {PICTURE_SSIM:g}), on {len(judged)} photographs",
    }


def answer(spec: Spec, output: Array) -> npt.NDArray[Any]:
    """One output, ``(1, ...) float32``, as a client gets it: see ``Judged``."""
    row = torch.from_numpy(output[0])
    if spec.output == "classes":
        shares: npt.NDArray[Any] = row.softmax(0).numpy()
        return shares
    return np.array(to_image(row, spec.output_range))
