"""Run a ``.pt`` with PyTorch alone: in a fresh process, without this project's code.

``python -I standalone.py ARTEFACT.pt CASES.pt`` prints one JSON object: the largest relative error
on each case (``[{"input": tensor, "output": tensor}, ...]``, with eager PyTorch's outputs) and on
the golden example, and the devices baked into the graph. Exit status 0 means that it ran, not that
the results are right.
"""

from __future__ import annotations

import json
import re
import sys
import time
import warnings

import torch


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference, relative to the largest expected value."""
    if output.shape != expected.shape:
        return float("inf")
    return ((output - expected).abs().max() / expected.abs().max()).item()


def main(artefact: str, cases: str) -> None:
    warnings.simplefilter("ignore")  # torch.jit warns of its deprecation on every call
    extra = {"model.json": b"", "golden_input.f32": b"", "golden_output.f32": b""}
    network = torch.jit.load(artefact, map_location="cpu", _extra_files=extra)
    golden = json.loads(extra["model.json"])["golden"]

    def tensor(name: str) -> torch.Tensor:
        data = bytearray(extra[f"golden_{name}.f32"])
        return torch.frombuffer(data, dtype=torch.float32).view(golden[f"{name}_shape"])

    results = []
    with torch.inference_mode():
        golden_error = relative_error(network(tensor("input")), tensor("output"))
        for case in torch.load(cases, weights_only=True):
            started = time.perf_counter()
            output = network(case["input"])
            seconds = time.perf_counter() - started
            results.append(
                {
                    "shape": list(case["input"].shape),
                    "error": relative_error(output, case["output"]),
                    "seconds": round(seconds, 3),
                }
            )
    foreign = [name for name in sys.modules if name.split(".")[0] in ("handlers", "export")]
    # A device in the graph would be used even after the network is moved to another.
    devices = re.findall(r"Device = prim::Constant\[value=\"(.*?)\"", str(network.inlined_graph))
    report = {"golden": golden_error, "cases": results, "devices": devices, "foreign": foreign}
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
