"""The TorchServe handler of every network: rows, headers and context <-> Message and Answer.

This is the only file that imports ``ts``. If a handler raises, TorchServe answers every request of
the batch with the same 503, so ``handle`` raises in one case only: all requests of the batch came
over gRPC and failed with the same error (``_raise_for_grpc``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import torch
from ts.utils.util import PredictionException

from handlers.errors import BadRequest, LoadError, NotFound, RequestError
from handlers.memory import give_back_after, use_one_heap
from handlers.reports import Reports
from handlers.request import Answer, Message
from handlers.service import Service
from handlers.stages import REPORTS, Stages
from handlers.traces import TRACES, traced
from handlers.unpacked import Unpacked

# TorchServe adds headers with this prefix to calls of the gRPC method StreamPredictions2.
_SEQUENCE_HEADERS = "ts_request_sequence"
# The gateway adds these headers of a gRPC call to its fields, because TorchServe passes no headers.
_ADDED = ("x-request-id", "traceparent")


class Handler:
    """TorchServe calls ``initialize`` at the start of a worker and ``handle`` for each batch."""

    service: Service
    version: str = ""  # of the archive
    reports: Reports | None = None  # None: no supervisor asks for them

    def initialize(self, context: Any) -> None:
        """Load the archive's network. Any exception makes the load fail."""
        use_one_heap()
        properties = context.system_properties
        artefact = Path(properties["model_dir"]) / context.manifest["model"]["serializedFile"]
        self.service = Unpacked(artefact, context.model_yaml_config or {}).service(
            _device(properties.get("gpu_id")),
            os.environ,
            batch_size=properties.get("batch_size") or 1,
        )
        self.version = str(context.manifest["model"].get("modelVersion", ""))
        if path := os.environ.get(REPORTS):
            description = self.service.describe()
            serves = {name: str(description[name]) for name in ("precision", "engine", "device")}
            metadata = self.service.metadata
            serves |= {"task": metadata.spec.task, "weights": metadata.weights.name}
            self.reports = Reports(
                path, metadata.name, {**serves, "version": self.version}, self.service.engine.device
            )
            self.reports.send()

    def handle(self, rows: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        """Answer a batch: a body per row; statuses and headers are set in ``context``."""
        headers = [header_values(context.get_all_request_header(i)) for i in range(len(rows))]
        if all(map(_asks_description, rows, headers)):
            return [json.dumps(self.service.describe()).encode()] * len(rows)
        stages, ended = Stages(), self.service.pool.ended.copy()
        ids = [context.get_request_id(i) for i in range(len(rows))]
        messages = list(map(message, rows, headers, ids))
        answers = self.service.answer(messages, stages)
        if self.reports:
            spans = traced(messages, answers, stages) if os.environ.get(TRACES) else None
            self.reports.add(stages, len(rows), self.service.pool.ended - ended, spans)
        _raise_for_grpc(answers, headers)
        for i in filter(lambda i: is_grpc(headers[i]), range(len(rows))):
            # StreamPredictions needs it: without it, TorchServe fails and ends the worker, and the
            # whole queue is lost. Predictions ignores it; over REST the answer would be chunked.
            context.set_response_header(i, "ts_stream_next", "false")
        _drop_bidirectional(context, headers)
        give_back_after(rows)
        return [self._respond(context, i, answer) for i, answer in enumerate(answers)]

    def _respond(self, context: Any, i: int, answer: Answer | RequestError) -> bytes:
        if isinstance(answer, RequestError):
            # The gateway's log does not see bodies.
            context.set_response_header(i, "x-error-type", type(answer).__name__)
            answer = Answer(answer.to_json(), "application/json", answer.code)
        context.set_response_status(answer.code, HTTPStatus(answer.code).phrase, i)
        context.set_response_content_type(i, answer.content_type)
        context.set_response_header(i, "x-model-weights", self.service.metadata.weights.name)
        context.set_response_header(i, "x-model-version", self.version)
        return answer.body


def message(
    row: Mapping[str, Any], headers: Mapping[str, str], given_id: str = "-"
) -> Message | RequestError:
    """One row of TorchServe's batch, its headers and TorchServe's id for it -> Message.

    Without the gateway, that id is the answer's ``x-request-id``. An error if the request came by a
    way that is not served.
    """
    if is_bidirectional(headers):
        return BadRequest("StreamPredictions2 is not served: use Predictions")
    if headers.get("explain") == "True":  # TorchServe's own header, on every prediction
        return NotFound("explanations are not served: send the picture to /predictions/NAME")
    if is_grpc(headers) and any(name in row for name in _ADDED):
        added = {name: row[name] for name in _ADDED if isinstance(row.get(name), bytes | bytearray)}
        headers = {name: value.decode("ascii", "replace") for name, value in added.items()}
        row = {name: value for name, value in row.items() if name not in _ADDED}
    return Message(headers, row.get("body"), row, given_id)


def header_values(headers: Mapping[str, object]) -> dict[str, str]:
    """Header values by lower-case name.

    TorchServe puts a dict for each form field into the same mapping; these are left out.
    """
    return {name.lower(): value for name, value in headers.items() if isinstance(value, str)}


def is_grpc(headers: Mapping[str, str]) -> bool:
    """Whether the request came over gRPC: TorchServe then passes at most the sequence headers.

    Over REST there is always another header: TorchServe adds its own on every prediction route.
    """
    return all(name.startswith(_SEQUENCE_HEADERS) for name in headers)


def is_bidirectional(headers: Mapping[str, str]) -> bool:
    """Whether the request came through the gRPC method StreamPredictions2.

    A REST client that sends such a header is not affected, because it has other headers too.
    """
    return bool(headers) and is_grpc(headers)


def _raise_for_grpc(
    answers: Sequence[Answer | RequestError], headers: Sequence[Mapping[str, str]]
) -> None:
    """Give gRPC callers a status code if the whole batch failed with the same error.

    Over gRPC, TorchServe ignores the statuses of single requests; only a PredictionException sets
    one, for the whole batch. A batch with a call of StreamPredictions2 must not raise, because that
    call must get no answer: see ``_drop_bidirectional``.
    """
    if any(map(is_bidirectional, headers)):
        return
    bodies = {a.to_json() if isinstance(a, RequestError) else b"" for a in answers}
    first = answers[0]
    if isinstance(first, RequestError) and len(bodies) == 1 and all(map(is_grpc, headers)):
        raise PredictionException(first.to_json().decode(), first.code)


def _drop_bidirectional(context: Any, headers: Sequence[Mapping[str, str]]) -> None:
    """Leave calls of the gRPC method StreamPredictions2 without an answer.

    Clients can call it although our .proto omits it. TorchServe 0.12 ends the call itself, with
    status UNKNOWN, as soon as it has queued the request. An answer from the worker would then raise
    an exception in TorchServe's thread for that worker: the thread would end, the worker would stay
    READY, and the model would answer nobody until a restart.
    """
    for i, values in enumerate(headers):
        if is_bidirectional(values):
            del context.request_ids[i]


def _asks_description(row: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """Whether this is a describe request: ``?customized=true`` in the management API.

    A client cannot send one: its request has a body in its row, even an empty one, or a form's
    content type.
    """
    describe = headers.get("describe", "").lower() == "true"
    return not row and describe and "content-type" not in headers


def _device(gpu_id: int | None) -> torch.device:
    if gpu_id is None:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise LoadError(
            f"TorchServe assigned GPU {gpu_id}, but PyTorch {torch.__version__} cannot use it: "
            "check the NVIDIA driver, or serve on the CPU with `make serve DEVICE=cpu`"
        )
    return torch.device("cuda", gpu_id)
