"""Run a network with PyTorch and OpenVINO alone: in a fresh process, without this project's code.

``python -I standalone.py ARTEFACT.pt CASES.pt OUTPUTS.pt`` takes cases, ``[{"input": tensor,
"output": tensor}, ...]`` with eager PyTorch's outputs, of which the first is the golden example. It
prints a JSON object for TorchScript: the largest relative error on each case, and the devices baked
into the graph. If the file has a network for OpenVINO, it prints a second one, and OUTPUTS.pt
receives OpenVINO's outputs, ``{"float32": [of all cases], "bfloat16": [of the last case]}``, the
second if the CPU has bfloat16. For a ``.pt2`` or ``.aoti.pt2`` it prints one object: the errors on
the golden example in the file and on the cases. Exit status 0 means that all ran, not that the
results are right.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import torch


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference, relative to the largest expected value."""
    if output.shape != expected.shape:
        return float("inf")
    return ((output - expected).abs().max() / expected.abs().max()).item()


def main(artefact: str, cases: str, outputs: str) -> None:
    warnings.simplefilter("ignore")  # torch.jit warns of its deprecation on every call
    examples = torch.load(cases, weights_only=True)
    with torch.inference_mode():
        if artefact.endswith(".pt2"):
            _print(cases=package(artefact, examples))
            return
        _print(**torchscript(artefact, examples))
        with zipfile.ZipFile(artefact) as file:
            names = {name.rpartition("/extra/")[2]: name for name in file.namelist()}
            program = file.read(names["openvino.xml"]) if "openvino.xml" in names else None
        if program is not None:
            _print(**openvino(artefact, program, examples, outputs))


def torchscript(artefact: str, examples: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    extra = {"golden_input.f32": b"", "golden_output.f32": b""}
    network = torch.jit.load(artefact, map_location="cpu", _extra_files=extra)
    golden = examples[0]
    for name, tensor in golden.items():
        stored = torch.frombuffer(bytearray(extra[f"golden_{name}.f32"]), dtype=torch.float32)
        golden[name] = stored.view(tensor.shape)
    # A device in the graph would be used even after the network is moved to another.
    devices = re.findall(r"Device = prim::Constant\[value=\"(.*?)\"", str(network.inlined_graph))
    foreign = [name for name in sys.modules if name.split(".")[0] in ("handlers", "export")]
    return {"cases": _errors(network, examples), "devices": devices, "foreign": foreign}


def package(artefact: str, examples: list[dict[str, torch.Tensor]]) -> list[dict[str, Any]]:
    files: dict[str, Any] = {"model.json": ""}
    network: Any
    if artefact.endswith(".aoti.pt2"):
        network = torch._inductor.aoti_load_package(artefact)
        files = network.loader.get_metadata()
    else:
        network = torch.export.load(artefact, extra_files=files).module()
    shapes = json.loads(files["model.json"])["golden"]
    golden = {}
    for name in ("input", "output"):
        data = bytearray(base64.b64decode(files[f"golden_{name}.f32.base64"]))
        stored = torch.frombuffer(data, dtype=torch.float32)
        golden[name] = stored.view(shapes[f"{name}_shape"])
    return _errors(network, [golden, *examples])


def _errors(
    network: Callable[[torch.Tensor], torch.Tensor], examples: list[dict[str, torch.Tensor]]
) -> list[dict[str, Any]]:
    results = []
    for example in examples:
        started = time.perf_counter()
        output = network(example["input"])
        seconds = round(time.perf_counter() - started, 3)
        error = relative_error(output, example["output"])
        results.append({"shape": list(example["input"].shape), "error": error, "seconds": seconds})
    return results


def openvino(
    artefact: str, program: bytes, examples: list[dict[str, torch.Tensor]], outputs: str
) -> dict[str, Any]:
    import numpy as np
    import openvino as ov

    core = ov.Core()

    def compiled(precision: str) -> Callable[[torch.Tensor], torch.Tensor]:
        weights = ov.Tensor(np.memmap(artefact, mode="r", dtype=np.uint8))
        model = core.read_model(program, weights)
        request = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": precision})
        return lambda batch: torch.from_numpy(request(batch.numpy())[0])

    network = compiled("f32")
    results = {"float32": [network(example["input"]).clone() for example in examples]}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        with contextlib.suppress(RuntimeError):  # ONEDNN_MAX_CPU_ISA hides it from some layers
            results["bfloat16"] = [compiled("bf16")(examples[-1]["input"]).clone()]
    torch.save(results, outputs)
    return {"version": ov.__version__}


def _print(**report: Any) -> None:
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
