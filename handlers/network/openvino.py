"""Runs a network in OpenVINO, on CPUs: faster than TorchScript there, above all for one picture."""

from __future__ import annotations

import functools
import importlib.util
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from handlers.errors import LoadError
from handlers.network.artefact import Artefact, read_files
from handlers.network.golden import check

# By our names: what layers compute in that are not in int8. Without a hint OpenVINO takes bfloat16
# where the CPU has it.
PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
# OpenVINO keeps a compiled kernel for each layer and input shape, 5000 by default.
_KERNELS = 128


class OpenVino:
    """The network of ``artefact`` on this CPU, computing in ``precision``, one of PRECISIONS.

    It uses as many threads as PyTorch. Raises LoadError if the artefact has no such network, or if
    the file or OpenVINO is faulty.
    """

    def __init__(self, artefact: Artefact, precision: str) -> None:
        cpu = torch.device("cpu")
        if precision == "bfloat16":
            # The tolerance for reduced precision would hide a damaged file.
            check(_compiled(artefact.path, "float32"), artefact, cpu, "float32")
        self._network = _compiled(artefact.path, precision)
        check(self._network, artefact, cpu, precision)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """``(N, 3, H, W) float32`` -> ``(N, ...) float32``."""
        return self._network(batch)


def _compiled(path: Path, precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network of the artefact ``path`` in ``precision``, without a check."""
    try:
        model = read_model(path, "int8" if precision == "int8" else "openvino")
        request = core().compile_model(model, "CPU", _options(precision)).create_infer_request()
    except (RuntimeError, OSError, KeyError, zipfile.BadZipFile) as error:
        last = str(error).strip().splitlines()[-1]
        raise LoadError(f"OpenVINO cannot load {path.name}: {last}") from error

    def run(batch: torch.Tensor) -> torch.Tensor:
        outputs = request.infer([batch.contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(outputs[0])

    return run


def read_model(path: Path, name: str) -> Any:
    """The ``openvino.Model`` that the artefact ``path`` has as ``name.xml``.

    Raises RuntimeError, OSError, KeyError or BadZipFile.
    """
    import openvino

    [program] = read_files(path, f"{name}.xml")
    # The weights are pages of the file, which the kernel can drop once they are compiled.
    weights = openvino.Tensor(np.memmap(path, mode="r", dtype=np.uint8))
    return core().read_model(program, weights)


@functools.cache
def core() -> Any:
    """The only ``openvino.Core`` of this process.

    A core gives its thread a stack for signal handlers, and on its end the stack from before it. If
    cores do not end in the reverse order of their creation, the thread is left with a stack that is
    no longer there, and the next signal with a handler, such as Ctrl-C, is a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _options(precision: str) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        # Other workers would be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": _KERNELS,
    }


def missing(precision: str) -> str | None:
    """Why OpenVINO cannot compute in ``precision`` on this machine, or None if it can."""
    if precision not in PRECISIONS:
        return f"it does not compute in {precision}"
    if importlib.util.find_spec("openvino") is None:
        return "the package openvino is not installed"
    native: list[str] = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and "BF16" not in native:
        return "it does not compute in bfloat16 on this CPU"
    return None
