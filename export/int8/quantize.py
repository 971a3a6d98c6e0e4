"""A float32 network -> int8, by post-training quantization with NNCF.

Weights and inputs of layers become 8-bit integers; the ranges of the inputs are those seen on the
calibration photographs. If the answers to these photographs then differ too much, the layers that
contribute most to the error return to float32, one by one.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence

import nncf
import openvino as ov

from export.gate import PICTURE_STEPS
from export.int8.judge import Array, Judged, judge
from export.int8.photos import File, Photo
from handlers.metadata import Spec

# Photographs on which layers are ranked, those that differ most: each layer costs a compilation and
# a run of these.
RANKING = 8
# With more layers in float32, little of int8's speed is left.
MOST_RESTORED = 30
TIE_BREAK = 1e-4
# The size of C's stack_t, with room.
_STACK_T = 64


@contextlib.contextmanager
def _signal_stack() -> Iterator[None]:
    """Give the thread its stack for signal handlers back.

    NNCF has OpenVINO cores of its own; ``handlers.network.openvino.core`` says what they leave.
    """
    libc, stack = ctypes.CDLL(None), ctypes.create_string_buffer(_STACK_T)
    libc.sigaltstack(None, stack)
    try:
        yield
    finally:
        gc.collect()  # the cores end
        libc.sigaltstack(stack, None)


@_signal_stack()
def quantize(
    model: ov.Model,
    spec: Spec,
    photos: Sequence[Photo],
    agreement: float,
    progress: Callable[[str], None],
) -> ov.Model:
    """``model`` in int8, calibrated on ``photos``; a classifier's last layers stay in float32.

    Layers return to float32 until the difference from ``model`` on ``photos`` is at most half of
    what the gate allows, ``1 - agreement`` or a number of 8-bit steps: it will be larger on
    photographs that were not calibrated on.
    """
    # nncf.set_log_level sets the level of the root logger's handlers, too.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    allowed = 1 - agreement + 2 * TIE_BREAK if spec.output == "classes" else PICTURE_STEPS / 255
    dataset = nncf.Dataset(photos, lambda photo: photo.input(spec))
    # `export.simplify.InFloat32` holds them as its child `layer`.
    ignored = nncf.IgnoredScope(patterns=[r"__module\..*\.layer/.*"], validate=False)
    return nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=dataset,
        validation_dataset=dataset,
        validation_fn=_Validation(spec, agreement, progress),
        max_drop=allowed / 2,
        subset_size=len(photos),
        ignored_scope=ignored,
        advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
            max_num_iterations=MOST_RESTORED, ranking_subset_size=RANKING, num_ranking_workers=1
        ),
    )


class _Validation:
    """NNCF's validation function, which NNCF calls with the float32 network first.

    Returns how close a network is to that one, 1 if they are equal, for all photographs and for
    each. NNCF ranks layers by the photographs on which the int8 network is farthest.
    """

    def __init__(self, spec: Spec, agreement: float, progress: Callable[[str], None]) -> None:
        self._spec, self._agreement, self._progress = spec, agreement, progress
        self._exact: dict[File, Array] = {}

    def __call__(
        self, network: ov.CompiledModel, photos: Iterable[Photo]
    ) -> tuple[float, list[float]]:
        known, judged = len(self._exact), []
        for photo in photos:
            output = network(photo.input(self._spec))[0]
            exact = self._exact.setdefault(photo.file, output)
            judged.append(Judged.of(self._spec, photo, exact, output))
        if known == len(self._exact) == len(judged):
            summary = judge(self._spec, judged, self._agreement)["summary"]
            self._progress(f"int8 on the calibration photographs: {summary}")
        values = [_closeness(self._spec, one) for one in judged]
        return statistics.mean(values), values


def _closeness(spec: Spec, one: Judged) -> float:
    if spec.output == "picture":
        return 1 - one.shift / 255
    agrees = float(one.exact.argmax() == one.int8.argmax())
    # The shift ranks layers that change the same answers.
    return agrees - TIE_BREAK * one.shift
