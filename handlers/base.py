"""The part every handler shares: load, warm up, and answer each request of a batch on its own.

TorchServe answers every member of a batch with the same 503 when a handler raises, so each step of
each request yields its result or the RequestError that the request is answered with. ``handle``
raises in one case: all requests of the batch came over gRPC and failed alike (``_raise_for_grpc``).
"""

from __future__ import annotations

import abc
import dataclasses
import json
import logging
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch
from PIL import Image
from ts.utils.util import PredictionException

from handlers.errors import BadRequest, InternalError, Overloaded, RequestError, TooLarge
from handlers.memory import give_back_after, use_one_heap
from handlers.metadata import Spec
from handlers.network.engine import LoadError, Network
from handlers.pictures.decode import encode
from handlers.pictures.limits import LIMITS, Limits
from handlers.pictures.pool import DecodePool
from handlers.preprocess import to_pixels
from handlers.request import Request, header_values, is_bidirectional, is_grpc, parse
from handlers.settings import PRECISION_VARIABLE, Settings
from handlers.stages import Stages, declare

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# TorchServe kills a worker that takes longer than responseTimeout (its default) over a batch, and
# all of the batch with it. Decoding may use this part of it.
RESPONSE_TIMEOUT_S = 120
DECODE_SHARE = 0.5
# No picture of a batch begins to be decoded later than this, or than half of decoding's part. Eight
# of the slowest sound pictures need 9 s on two processes (python -m benchmarks.slowest).
DECODE_BEGIN_S = 20
DECODER_START_S = 30


@dataclass(frozen=True)
class Options:
    """What one request asked for, validated. Each model reads the fields that it offers."""

    format: str
    resize: int | None = None
    top_k: int = 0
    quality: int = 0


@dataclass(frozen=True)
class Prepared:
    """A request on its way into the network: its pixels are ``(H, W, 3) uint8`` on the CPU."""

    pixels: torch.Tensor
    options: Options


@dataclass(frozen=True)
class Answer:
    """What one request is answered with."""

    body: bytes
    content_type: str
    code: int = 200


class ImageHandler(abc.ABC):
    """A TorchServe handler for one picture in, one answer out.

    A model says what a request may ask for (``read_options``) and what its output means
    (``encode``). Nothing of a request is ever kept on ``self``.
    """

    spec: Spec
    device: torch.device
    network: Network
    weights: str
    limits: Limits = LIMITS
    # Input pixels that go through the network together on a CPU.
    cpu_pixels: int = sys.maxsize

    @abc.abstractmethod
    def read_options(self, request: Request) -> Options:
        """The request's options; raises InvalidOption or NotAcceptable."""

    @abc.abstractmethod
    def encode(self, output: torch.Tensor, options: Options) -> Answer:
        """One row of the network's output, float32 on the CPU -> the answer's body."""

    def initialize(self, context: Any) -> None:
        """TorchServe's entry point at worker start; whatever it raises fails the load."""
        started = time.perf_counter()
        use_one_heap()
        properties = context.system_properties
        folder = Path(properties["model_dir"])
        self.device = _device(properties.get("gpu_id"))
        batch_size = properties.get("batch_size") or 1
        yaml = context.model_yaml_config or {}
        settings = _settings(yaml)
        self.limits = settings.limits
        self._decode_seconds = DECODE_SHARE * yaml.get("responseTimeout", RESPONSE_TIMEOUT_S)
        path = folder / context.manifest["model"]["serializedFile"]
        self.network = Network(path, self.device, settings.precision)
        self.spec = self.network.spec
        self.weights = self.network.metadata["weights"]["name"]
        # As many pictures are decoded at once as the network has threads: its share of the cores.
        self._start_decoders(min(batch_size, torch.get_num_threads()))
        self.network.warm_up(batch_size)
        if context.metrics is not None:
            declare(context.metrics)
        logger.info(
            "%s on %s in %s (%s): ready in %.1f s",
            self.spec.name,
            self.device,
            self.network.precision,
            self.network.precision_reason,
            time.perf_counter() - started,
        )

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """TorchServe's entry point per batch: one body per row, statuses and headers in context."""
        headers = [context.get_all_request_header(i) for i in range(len(rows))]
        if all(map(_asks_description, rows, headers)):
            return [self.describe()] * len(rows)
        stages = Stages()
        begun = time.monotonic()
        start_by = begun + min(DECODE_BEGIN_S, self._decode_seconds / 2)
        deadline = begun + self._decode_seconds

        def prepare(i: int) -> Prepared | RequestError:
            if is_bidirectional(headers[i]):
                return BadRequest("StreamPredictions2 is not served: use Predictions")
            return _attempt(self.prepare, rows[i], headers[i], start_by, deadline)

        with stages("decode"):
            prepared = list(self._threads.map(prepare, range(len(rows))))
        outputs = self._infer_by_shape(prepared, stages)
        with stages("encode"):
            pairs = zip(prepared, outputs, strict=True)
            answers = [_attempt(self._finish, *pair) for pair in pairs]
        outcomes = (a.__class__.__name__ if isinstance(a, RequestError) else "ok" for a in answers)
        logger.info("batch of %d: %s; %s", len(rows), ", ".join(outcomes), stages)
        if context.metrics is not None:
            stages.report(context.metrics, self.spec.name, len(rows))
        _raise_for_grpc(answers, headers)
        for i in filter(lambda i: is_grpc(headers[i]), range(len(rows))):
            # Without it TorchServe fails on StreamPredictions, and ends the worker with all that it
            # was asked. Predictions over gRPC ignores it; to REST it would mean a chunked answer.
            context.set_response_header(i, "ts_stream_next", "false")
        _drop_bidirectional(context, headers)
        give_back_after(rows)
        return [self._respond(context, i, answer) for i, answer in enumerate(answers)]

    def prepare(
        self,
        row: Mapping[str, Any],
        headers: Mapping[str, object],
        start_by: float,
        deadline: float,
    ) -> Prepared:
        """One row -> pixels and options; both times are by ``time.monotonic``.

        Decoding begins by ``start_by`` and ends by ``deadline``.

        Raises the RequestError that the request is to be answered with.
        """
        request = parse(row, headers, self.limits)
        options = self.read_options(request)
        image = self._decoders.decode(request.picture, options.resize, deadline, start_by=start_by)
        return Prepared(to_pixels(image), options)

    def infer(
        self, pixels: Sequence[torch.Tensor], stages: Stages
    ) -> list[torch.Tensor | RequestError]:
        """``N`` pictures ``(H, W, 3) uint8`` of one size -> one output or error each.

        A batch that fails is tried again one by one, so that a failure stays with its cause. A
        device that no longer answers ends this process: TorchServe starts another.
        """
        try:
            with torch.inference_mode():
                with stages("preprocess"):
                    batch = self.network.preprocess(pixels)
                with stages("network"):
                    outputs = self.network(batch)
            # Neither JSON nor a picture has a NaN: numbers out of range are our 500.
            return [output if output.isfinite().all() else InternalError() for output in outputs]
        except Exception as error:
            _exit_if_lost(self.device)
            if len(pixels) > 1:
                logger.warning(
                    "a batch of %d failed; trying one by one", len(pixels), exc_info=True
                )
                return [output for one in pixels for output in self.infer([one], stages)]
            logger.exception("the network failed on pixels %s", tuple(pixels[0].shape))
            return [
                Overloaded("no memory left for this picture") if _is_oom(error) else InternalError()
            ]

    def describe(self) -> bytes:
        """JSON of what is served and where; the management API shows it as customizedMetadata."""
        found = {
            **self.network.metadata,
            "device": str(self.device),
            "precision": self.network.precision,
            "precision_reason": self.network.precision_reason,
            "limits": dataclasses.asdict(self.limits),
        }
        return json.dumps(found).encode()

    def close(self) -> None:
        """End the decode processes; a worker's end does the same."""
        self._threads.shutdown()
        self._decoders.close()

    def _start_decoders(self, processes: int) -> None:
        self._decoders = DecodePool(self.spec, self.limits, processes)
        self._threads = ThreadPoolExecutor(processes, "prepare")
        picture = encode(Image.new("RGB", (8, 8)), "PNG", quality=0)
        for _ in range(processes):
            try:
                self._decoders.decode(picture, None, time.monotonic() + DECODER_START_S)
            except TooLarge:
                pass  # it answers, by limits that are lower than a model's own size
            except RequestError as error:
                raise LoadError("a decode process does not start; its output says why") from error

    def _infer_by_shape(
        self, prepared: Sequence[Prepared | RequestError], stages: Stages
    ) -> list[torch.Tensor | RequestError | None]:
        """The network over all that were prepared; None where there was nothing to infer."""
        groups: dict[torch.Size, list[tuple[int, torch.Tensor]]] = defaultdict(list)
        for i, item in enumerate(prepared):
            if isinstance(item, Prepared):
                groups[item.pixels.shape].append((i, item.pixels))
        outputs: list[torch.Tensor | RequestError | None] = [None] * len(prepared)
        # One input may be as large as network_pixels allows; all of a batch together no larger.
        most = self.limits.network_pixels
        if self.device.type == "cpu":
            most = min(most, self.cpu_pixels)
        for shape, members in groups.items():
            together = max(most // (shape[0] * shape[1]), 1)
            for some in _slices(members, together):
                positions, pixels = zip(*some, strict=True)
                for i, output in zip(positions, self.infer(pixels, stages), strict=True):
                    outputs[i] = output
        return outputs

    def _finish(
        self, prepared: Prepared | RequestError, output: torch.Tensor | RequestError | None
    ) -> Answer:
        """Encode, or raise the error that an earlier stage left."""
        if isinstance(prepared, RequestError):
            raise prepared
        if isinstance(output, torch.Tensor):
            return self.encode(output, prepared.options)
        raise output or InternalError()

    def _respond(self, context: Any, i: int, answer: Answer | RequestError) -> bytes:
        if isinstance(answer, RequestError):
            answer = Answer(answer.to_json(), "application/json", answer.code)
        context.set_response_status(answer.code, HTTPStatus(answer.code).phrase, i)
        context.set_response_content_type(i, answer.content_type)
        context.set_response_header(i, "x-model-weights", self.weights)
        return answer.body


def _attempt(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | RequestError:
    """``step``'s result, or the error to answer this one request with."""
    try:
        return step(*args, **kwargs)
    except RequestError as error:
        return error
    except Exception:
        logger.exception("a request failed for a reason of ours")
        return InternalError()


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items`` in order, at most ``size`` at a time."""
    return (items[i : i + size] for i in range(0, len(items), size))


def _raise_for_grpc(
    answers: Sequence[Answer | RequestError], headers: Sequence[Mapping[str, object]]
) -> None:
    """Give gRPC callers a real status where TorchServe can: when the whole batch failed alike.

    TorchServe drops statuses per request over gRPC, and a raised PredictionException answers all.
    A batch with a call of StreamPredictions2 is answered in place: see ``_drop_bidirectional``.
    """
    if any(map(is_bidirectional, headers)):
        return
    bodies = {a.to_json() if isinstance(a, RequestError) else b"" for a in answers}
    first = answers[0]
    if isinstance(first, RequestError) and len(bodies) == 1 and all(map(is_grpc, headers)):
        raise PredictionException(first.to_json().decode(), first.code)


def _drop_bidirectional(context: Any, headers: Sequence[Mapping[str, object]]) -> None:
    """Leave calls of the gRPC method StreamPredictions2 without an answer from this worker.

    Clients can call it although our .proto omits it. TorchServe 0.12 ends the call by itself, with
    status UNKNOWN, as soon as it has queued the request. An answer or an error that then comes from
    the worker is one exception too many in the thread that serves the worker: the thread ends, the
    worker stays READY, and the model answers nobody until a restart.
    """
    for i, known in enumerate(headers):
        if is_bidirectional(known):
            del context.request_ids[i]


def _asks_description(row: Mapping[str, Any], headers: Mapping[str, object]) -> bool:
    """Whether this is the management API's ``?customized=true``.

    A client's request has at least an empty body in its row, or is an empty form: by its type.
    """
    known = header_values(headers)
    return not row and known.get("describe", "").lower() == "true" and "content-type" not in known


def _settings(yaml: Mapping[str, Any]) -> Settings:
    try:
        return Settings.from_yaml(yaml, os.environ.get(PRECISION_VARIABLE))
    except ValueError as error:
        raise LoadError(f"the settings of the model: {error}") from error


def _device(gpu_id: int | None) -> torch.device:
    if gpu_id is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise LoadError(
            f"TorchServe assigned GPU {gpu_id}, but PyTorch {torch.__version__} cannot use it: "
            "check the NVIDIA driver, or serve on the CPU with `make serve DEVICE=cpu`"
        )
    return torch.device("cuda", gpu_id)


def _exit_if_lost(device: torch.device) -> None:
    """End the process where a CUDA fault has poisoned its context.

    After an illegal access or a device-side assert every later CUDA call of the process fails too;
    an out-of-memory leaves it sound. os._exit, as tearing down a dead context can hang.
    """
    if device.type != "cuda":
        return
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        logger.critical("%s is lost to this process: ending the worker", device, exc_info=True)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(1)


def _is_oom(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error)  # TorchScript's interpreter and the CPU allocator raise RuntimeError
    return "out of memory" in text or "can't allocate memory" in text
