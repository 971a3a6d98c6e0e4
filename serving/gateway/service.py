"""Envoy's external processing service, over gRPC: Envoy asks it whether a request may go on."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from serving.gateway import ext_proc
from serving.gateway.admission import ModelQueue, place
from serving.gateway.configuration import GatewayLimits
from serving.gateway.uploads import SMALL_BYTES, Uploads
from serving.plan import ModelPlan
from serving.refusals import (
    GRPC_STATUS,
    Refused,
    check_query,
    timeout_of,
    too_many_at_once,
)
from serving.versions import Served

if TYPE_CHECKING:
    from serving.traces.service import Traces

_REST = "/predictions/"
# gRPC's units of a deadline, in seconds.
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class AdmissionService(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Admits requests for the models of ``queues``, and large uploads.

    Envoy asks twice: in the phase ``arrival`` before it reads a body that is not small, and in the
    phase ``turn`` when the request is complete. ``served`` has the versions of the models: a
    request is sent to one of them when its turn has come, and its answer has the
    ``x-model-weights`` and ``x-model-version`` of that one. ``succeeded`` is called with the key of
    a version that has answered 200. No request waits for more than ``longest_wait`` seconds.
    ``most_of`` is the number of requests by client that may wait or be with TorchServe at once.
    ``token`` gives TorchServe's token, which is another one after TorchServe was restarted while a
    request waited. ``waited`` is called with a model and the seconds that a request for it was in
    the queue, until its turn or its refusal. ``traces`` gets a span of that.
    """

    def __init__(
        self,
        queues: Mapping[str, ModelQueue],
        served: Served,
        succeeded: Callable[[str], None],
        longest_wait: float,
        limits: GatewayLimits,
        token: Callable[[], str | None],
        waited: Callable[[str, float], None],
        traces: Traces | None = None,
    ) -> None:
        self._traces = traces
        self._waited = waited
        self._token = token
        self._most_bytes = limits.request_bytes
        # The other half of the memory is for small requests, answers and connections.
        self._uploads = Uploads(limits.memory_bytes // 2)
        self._longest_wait = longest_wait
        self._queues = queues
        self._served = served
        self._succeeded = succeeded
        self._present: Counter[str] = Counter()
        self.most_of: Mapping[str, int] = {}

    def service(self, handler_call_details: Any) -> Any:
        """The handler of a method, for gRPC; None for any other method."""
        if handler_call_details.method != f"/{ext_proc.SERVICE}/{ext_proc.METHOD}":
            return None
        return grpc.stream_stream_rpc_method_handler(
            self._process,
            request_deserializer=ext_proc.ProcessingRequest.FromString,
            response_serializer=ext_proc.ProcessingResponse.SerializeToString,
        )

    async def _process(self, messages: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Decide on one request: ``messages`` are its headers, then those of the answer."""
        arrived = time.monotonic()
        first = await anext(messages, None)
        if first is None:
            return
        if not first.HasField("request_headers"):  # another filter has answered
            yield ext_proc.pass_response({})
            return
        headers = ext_proc.header_values(first.request_headers)
        client = headers.get("x-gateway-client", "")
        metadata = context.invocation_metadata()
        span = self._traces.gateway_of(headers, metadata) if self._traces else ""
        if ("phase", "arrival") in metadata:
            async for response in self._arrive(client, headers, messages, span):
                yield response
            return
        self._present[client] += 1
        try:
            queue = self._queue(headers)
            path, _, query = headers.get(":path", "").partition("?")
            options = self._served.default(queue.model).archive.options
            check_query(query, (*options, "format"))
            deadline = _deadline(headers, arrived)
            self._check_limit(client)
            longest = arrived + self._longest_wait
            until = longest if deadline is None else min(deadline, longest)
            version, traced = _named_version(path, headers), self._traced(span, headers, queue)
            async with self._turn(queue, client, version, until, traced) as turn:
                answer, planned = turn
                now = time.monotonic()
                added = {
                    "x-gateway-queue-ms": f"{(now - arrived) * 1000:.0f}",
                    "authorization": f"Bearer {self._token()}",
                    # Over gRPC the message says it, and the filter `version` writes it there.
                    "x-gateway-version": planned.version,
                }
                if path.startswith(_REST):
                    added[":path"] = _REST + planned.key
                if deadline is not None:
                    left = max(round((deadline - now) * 1000), 1)
                    added["x-envoy-upstream-rq-timeout-ms"] = str(left)
                yield ext_proc.proceed(added)
                async for message in messages:
                    response = ext_proc.header_values(message.response_headers)
                    answer()
                    if response.get(":status") == "200" and "x-error-type" not in response:
                        self._succeeded(planned.key)
                    yield ext_proc.pass_response(
                        {
                            "x-model-weights": planned.archive.weights,
                            "x-model-version": planned.version,
                        }
                    )
        except Refused as refusal:
            yield _refuse(refusal)
        finally:
            self._present[client] -= 1
            if not self._present[client]:
                del self._present[client]

    @contextlib.asynccontextmanager
    async def _turn(
        self,
        queue: ModelQueue,
        client: str,
        version: str | None,
        until: float,
        traced: contextlib.AbstractContextManager[None],
    ) -> AsyncIterator[tuple[Callable[[], None], ModelPlan]]:
        """Wait until a request may go on: what to call when it is answered, and its version.

        The version is chosen at the last moment, so that none of those that wait goes to one which
        was replaced meanwhile. One that the request names is kept for it. Raises Refused.
        """
        with contextlib.ExitStack() as stack:
            named = (
                stack.enter_context(self._served.used(queue.model, version)) if version else None
            )
            with self._timed(queue.model), traced:
                await queue.enter(client, until)
            answer = stack.enter_context(place(queue, client))
            yield answer, named or stack.enter_context(self._served.used(queue.model, None))

    async def _arrive(
        self, client: str, headers: Mapping[str, str], messages: AsyncIterator[Any], span: str
    ) -> AsyncIterator[Any]:
        """Count an upload before Envoy reads its body, until the request is answered.

        ``span`` is the gateway's, or empty. Envoy itself sets it later than the filter that adds it
        to the fields of a gRPC call.
        """
        try:
            with self._uploads.counted(client, self._size(headers)):
                yield ext_proc.proceed({"traceparent": span} if span else {})
                async for _ in messages:  # the answer's headers
                    yield ext_proc.pass_response({})
        except Refused as refusal:
            yield _refuse(refusal)

    def _traced(
        self, span: str, headers: Mapping[str, str], queue: ModelQueue
    ) -> contextlib.AbstractContextManager[None]:
        """A span of the body below the gateway's ``span``, if that is not empty."""
        if not self._traces or not span:
            return contextlib.nullcontext()
        about: dict[str, str | int] = {
            "vision.request.id": headers.get("x-request-id", ""),
            "vision.model.name": queue.model,
            "vision.queue.waiting": queue.waiting,
        }
        return self._traces.wait(span, about)

    def _size(self, headers: Mapping[str, str]) -> int:
        """The most bytes that the request of ``headers`` can have; Envoy refuses larger ones."""
        length = headers.get("content-length", "")
        if length.isdecimal():
            return min(int(length), self._most_bytes)
        # If memory runs out, Envoy resets HTTP/2 streams, as gRPC's are, but not HTTP/1 requests.
        is_grpc = headers.get("content-type", "").startswith("application/grpc")
        return SMALL_BYTES + 1 if is_grpc else self._most_bytes

    def _queue(self, headers: Mapping[str, str]) -> ModelQueue:
        model = headers.get("x-gateway-model", "")
        if model not in self._queues:
            raise Refused(404, "ModelNotFound", "there is no such model: GET /models lists them")
        return self._queues[model]

    @contextlib.contextmanager
    def _timed(self, model: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._waited(model, time.monotonic() - begun)

    def _check_limit(self, client: str) -> None:
        most = self.most_of.get(client)
        if most is not None and self._present[client] > most:
            raise too_many_at_once(most)


def _named_version(path: str, headers: Mapping[str, str]) -> str | None:
    """The version that a request names: REST in its path, gRPC in its message."""
    if path.startswith(_REST):
        return path.removeprefix(_REST).partition("/")[2] or None
    return headers.get("x-gateway-version")


def _deadline(headers: Mapping[str, str], arrived: float) -> float | None:
    """The client's deadline on the clock of ``arrived``, or None if it has sent none.

    Raises Refused if ``x-timeout-ms`` is invalid.
    """
    if text := headers.get("x-timeout-ms"):
        return arrived + timeout_of(text)
    if match := re.fullmatch("([0-9]{1,8})([HMSmun])", headers.get("grpc-timeout", "")):
        return arrived + int(match[1]) * _UNITS[match[2]]
    return None


def _refuse(refusal: Refused) -> Any:
    headers = {"content-type": "application/json", "x-error-type": refusal.type}
    if refusal.retry_after:
        headers["retry-after"] = str(refusal.retry_after)
    return ext_proc.refuse(
        refusal.code,
        GRPC_STATUS[refusal.code],
        refusal.to_json(),
        headers,
        refusal.type,
    )
