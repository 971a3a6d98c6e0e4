"""Run exported networks with PyTorch alone: in a fresh process, without this project's code.

``python -I standalone.py CASES.pt ARTEFACT...`` prints a JSON object for each artefact, one a line:
the largest relative error on each case (``[{"input": tensor, "output": tensor}, ...]``, with eager
PyTorch's outputs) and on the golden example, and the devices baked into a trace; or ``error`` if it
does not run. Exit status 0 does not mean that the results are right.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

GOLDEN = ("golden_input.f32", "golden_output.f32")

Network = Callable[[torch.Tensor], torch.Tensor]


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest absolute difference, relative to the largest expected value."""
    if output.shape != expected.shape:
        return float("inf")
    return ((output - expected).abs().max() / expected.abs().max()).item()


def main(cases: str, *artefacts: str) -> None:
    warnings.simplefilter("ignore")  # torch.jit warns of its deprecation on every call
    for artefact in artefacts:
        try:
            report = _report(artefact, torch.load(cases, weights_only=True))
        except Exception as error:  # noqa: BLE001  # what it raises is what is reported
            last = str(error).strip().splitlines()[-1:]
            report = {"error": f"{type(error).__name__}: {''.join(last)}"}
        print(json.dumps(report), flush=True)


def _report(artefact: str, cases: list[dict[str, torch.Tensor]]) -> dict[str, Any]:
    network, extra, devices = _load(artefact)
    golden = json.loads(extra["model.json"])["golden"]

    def tensor(name: str) -> torch.Tensor:
        data = bytearray(extra[f"golden_{name}.f32"])
        return torch.frombuffer(data, dtype=torch.float32).view(golden[f"{name}_shape"])

    results = []
    with torch.inference_mode():
        golden_error = relative_error(network(tensor("input")), tensor("output"))
        for case in cases:
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
    return {"golden": golden_error, "cases": results, "devices": devices, "foreign": foreign}


def _load(path: str) -> tuple[Network, dict[str, bytes], list[str]]:
    """The network, its extra files, and the devices in the graph of a trace.

    Those would be used even after the network is moved to another. ``move_to_device_pass`` changes
    those of a ``.pt2``; an ``.aoti.pt2`` is for the CPU alone.
    """
    files: dict[str, Any] = dict.fromkeys(("model.json", *GOLDEN), "")
    if path.endswith(".pt"):
        traced = torch.jit.load(path, map_location="cpu", _extra_files=files)
        devices = re.findall(r"Device = prim::Constant\[value=\"(.*?)\"", str(traced.inlined_graph))
        return traced, files, devices
    network: Any
    if path.endswith(".aoti.pt2"):
        network = torch._inductor.aoti_load_package(path)
        files = network.loader.get_metadata()
    else:
        network = torch.export.load(path, extra_files=files).module()
    golden = {name: base64.b64decode(files[f"{name}.base64"]) for name in GOLDEN}
    return network, {"model.json": files["model.json"].encode(), **golden}, []


if __name__ == "__main__":
    main(*sys.argv[1:])
