"""A LitServe server of a classifier, tuned by hand; only FastAPI reads its annotations.

A reduced precision where it is native, channels-last, a frozen trace, batches that are decoded on
all cores. No module that uses it may say ``from __future__ import annotations``: LitServe takes the
type of a request from the signature.
"""

import argparse
import io
import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import litserve
import torch
from fastapi import Body, Response
from PIL import Image
from torchvision.transforms import v2

from export.networks import registered

TOP = 5


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """The raw bytes of a picture in, the five likeliest classes as JSON out."""

    def __init__(self, pt: Path, precision: str, **options: Any) -> None:
        super().__init__(api_path=f"/predictions/{pt.stem}", **options)
        self.pt, self.precision = pt, precision

    def setup(self, device: str) -> None:
        spec = registered()[self.pt.stem].spec()
        self.labels = spec.labels
        self.dtype: torch.dtype = getattr(torch, self.precision)
        assert spec.crop is not None
        self.transform = v2.Compose(
            [
                v2.Resize(spec.resize, v2.InterpolationMode(spec.interpolation)),
                v2.CenterCrop(spec.crop),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(spec.mean, spec.std),
            ]
        )
        shape = self.max_batch_size, 3, spec.crop, spec.crop
        black = torch.zeros(shape, dtype=self.dtype, device=device)
        self.threads = ThreadPoolExecutor(torch.get_num_threads())
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            script = torch.jit.load(self.pt, device).to(self.dtype)
            script = script.to(memory_format=torch.channels_last)
            self.network = torch.jit.freeze(script.eval())
            for size in (1, 2, 4, self.max_batch_size) * 3:
                self.network(black[:size].contiguous(memory_format=torch.channels_last))

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> torch.Tensor:
        pixels = torch.stack(list(self.threads.map(self._decode, inputs)))
        return pixels.to(self.device, self.dtype, memory_format=torch.channels_last)

    def _decode(self, data: bytes) -> torch.Tensor:
        with Image.open(io.BytesIO(data)) as image:
            pixels: torch.Tensor = self.transform(image.convert("RGB"))
        return pixels

    def predict(self, x: torch.Tensor, **_: Any) -> list[tuple[list[float], list[int]]]:
        with torch.inference_mode():
            values, indices = self.network(x).float().softmax(dim=1).topk(TOP)
        return list(zip(values.tolist(), indices.tolist(), strict=True))

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: tuple[list[float], list[int]], **_: Any) -> Response:
        best = {self.labels[i]: value for value, i in zip(*output, strict=True)}
        return Response(json.dumps(best), media_type="application/json")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.litserve_server")
    parser.add_argument("pt", type=Path, help="a plain trace, named as its network")
    parser.add_argument("precision")
    parser.add_argument("port", type=int)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batch-timeout", type=float, default=0.0, metavar="SECONDS")
    given = parser.parse_args()
    # LitServe starts the workers, which inherit this.
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // given.workers, 1)))
    options = {"max_batch_size": given.batch, "batch_timeout": given.batch_timeout}
    server = litserve.LitServer(
        Classifier(given.pt, given.precision, **options),
        accelerator="cuda" if given.device == "gpu" else "cpu", devices=1,
        workers_per_device=given.workers, timeout=300,
    )  # fmt: skip
    server.run(
        host="127.0.0.1", port=given.port, num_api_servers=1, generate_client_file=False,
        log_level="warning",
    )  # fmt: skip


if __name__ == "__main__":
    main()
