"""Run a ``.pt`` as a stranger would: torch alone, a fresh process, none of this project's code.

``python -I prove.py ARTEFACT.pt CASES.pt`` prints one JSON object: the artefact's largest relative
error over the cases (``[{"input": tensor, "output": tensor}, ...]``, eager PyTorch's answers) and
on its own golden example, and the devices baked into its graph. Exit status 0 means that it ran,
not that it is sound.
"""

from __future__ import annotations

import json
import re
import sys
import time
import warnings

import torch

warnings.simplefilter("ignore")  # torch.jit warns of its deprecation on every call


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference, relative to the largest value expected."""
    if output.shape != expected.shape:
        return float("inf")
    return ((output - expected).abs().max() / expected.abs().max()).item()


def main(artefact: str, cases: str) -> None:
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
    # A device that the trace keeps would be used wherever the network is moved to.
    devices = re.findall(r"Device = prim::Constant\[value=\"(.*?)\"", str(network.inlined_graph))
    found = {"golden": golden_error, "cases": results, "devices": devices, "foreign": foreign}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
