"""The ingress: REST and gRPC as under TorchServe, dispatched on the name of the model."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from ray.serve.grpc_util import RayServegRPCContext
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deploy.ray import rest
from deploy.ray.access import Access
from deploy.ray.dispatch import Served
from deploy.ray.messages import Call, Reply, refusal
from deploy.ray.options import APPLICATION
from deploy.ray.watch import count_replicas, send_canaries
from serving.archives import VERSION
from serving.gateway.uploads import SMALL_BYTES, Uploads
from serving.health import Health
from serving.refusals import GRPC_STATUS, Refused, check_query, no_version
from vision_client import inference_pb2

logger = logging.getLogger("ray.serve")

_PREDICTION = re.compile(f"/predictions/([^/]+)(?:/({VERSION.pattern}))?")
_READS = re.compile("/(livez|readyz|models|ping)|/readyz/([^/]+)")
_WATCH_S = 0.5
_STATUS = {status.value[0]: status for status in grpc.StatusCode}
_BUG = Refused(500, "InternalError", "the server failed on this request; its log says why")


class Front:
    """``models`` are the arguments of Served by name, ``handles`` the deployments of the models.

    A request has at most ``most_bytes``, and those of more than 1 MiB together at most half of
    ``memory_bytes``, from their headers until their answers. ``api_keys`` is the path of a keys
    file, or None.
    """

    def __init__(
        self,
        models: dict[str, dict[str, Any]],
        handles: dict[str, DeploymentHandle[Any]],
        most_bytes: int,
        memory_bytes: int,
        api_keys: str | None,
    ) -> None:
        self._access = Access(Path(api_keys) if api_keys else None)
        self._models = {
            # By value: objects of Ray's store would be copied once more.
            name: Served(
                handle=handles[name].options(method_name="answer", _by_reference=False), **model
            )
            for name, model in models.items()
        }
        self._most_bytes = most_bytes
        # As in the gateway: the other half is for small requests and answers.
        self._uploads = Uploads(memory_bytes // 2)
        self._health = Health({name: served.replicas for name, served in self._models.items()})
        self._refuses = False
        self._tasks: list[asyncio.Task[None]] = []

    async def check_health(self) -> None:
        """Ray calls this; the first time, it starts to watch the models."""
        self._watch()

    async def drain(self, *, refuse: bool) -> int:
        """Fail readiness from now on, and refuse predictions if ``refuse``.

        Returns the number of requests that are not answered yet.
        """
        self._health.draining, self._refuses = True, refuse
        return sum(served.open for served in self._models.values())

    async def __call__(self, request: Request) -> Response:
        """One HTTP request."""
        self._watch()
        id = rest.request_id(request.headers)
        try:
            return await self._respond(request, id)
        except Refused as refused:
            return rest.response(refusal(refused))
        except Exception:
            logger.exception("%s failed because of a bug", id)
            return rest.response(refusal(_BUG))

    async def _respond(self, request: Request, id: str) -> Response:
        path, method = rest.path_of(request), request.method
        if match := _PREDICTION.fullmatch(path):
            _allow(method, "POST", "PUT")
            served = self._served(match[1], match[2])
            check_query(request.url.query, served.options)
            timeout = rest.timeout_of(request.headers)
            size = rest.size_of(request.headers, self._most_bytes)
            with self._present(request.headers.get("authorization", ""), id, size):
                call = await rest.read_call(request, id, self._most_bytes)
                return rest.response(await self._answer(served, call, timeout))
        if re.match("/predictions/.", path):
            _allow(method, "POST", "PUT")
            raise self._unknown(path.split("/")[2])
        if match := _READS.fullmatch(path):
            _allow(method, "GET")
            return self._read(match[1] or "readyz", match[2])
        raise Refused(
            404, "NotFound", "there are /predictions/NAME, /models, /readyz, /livez and /ping"
        )

    async def Predictions(self, request: Any, grpc_context: RayServegRPCContext) -> Any:  # noqa: N802
        """A prediction over gRPC."""
        self._watch()
        metadata = {name.lower(): value for name, value in grpc_context.invocation_metadata()}
        id = rest.request_id(metadata)
        try:
            reply = await self._predict(request, metadata, id)
        except Refused as refused:
            reply = refusal(refused)
        except Exception:
            logger.exception("%s failed because of a bug", id)
            reply = refusal(_BUG)
        _finish(grpc_context, reply, id)
        if reply.code != 200:
            return inference_pb2.PredictionResponse()
        return inference_pb2.PredictionResponse(prediction=reply.body)

    async def StreamPredictions(  # noqa: N802
        self, request: Any, grpc_context: RayServegRPCContext
    ) -> AsyncIterator[Any]:
        """The same, as a stream of one message; of none if it is an error."""
        response = await self.Predictions(request, grpc_context)
        if not grpc_context.code():
            yield response

    async def Ping(self, _: Any, grpc_context: RayServegRPCContext) -> Any:  # noqa: N802
        """Whether every model answers."""
        self._watch()
        health = "Healthy" if self._health.ready else "Unhealthy"
        return inference_pb2.TorchServeHealthResponse(health=health)

    async def Check(self, request: Any, grpc_context: RayServegRPCContext) -> Any:  # noqa: N802
        """``grpc.health.v1``: the status of a model, or of the server under the empty name."""
        self._watch()
        status = self._status(request.service)
        if status is None:
            grpc_context.set_code(grpc.StatusCode.NOT_FOUND)
            grpc_context.set_details(f"no model {request.service!r} is served here")
        return health_pb2.HealthCheckResponse(status=status or 0)

    async def Watch(  # noqa: N802
        self, request: Any, grpc_context: RayServegRPCContext
    ) -> AsyncIterator[Any]:
        """``grpc.health.v1``: the same, again whenever it changes."""
        self._watch()
        unknown = int(health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        last = None
        while True:
            status = self._status(request.service) or unknown
            if status != last:
                last = status
                yield health_pb2.HealthCheckResponse(status=status)
            await asyncio.sleep(_WATCH_S)

    async def _predict(self, request: Any, metadata: dict[str, str], id: str) -> Reply:
        served = self._served(request.model_name, request.model_version or None)
        if len(request.input) > rest.MOST_FIELDS:
            raise Refused(
                400, "BadRequest", f"a request may have at most {rest.MOST_FIELDS} fields"
            )
        traced = {name: metadata[name] for name in ("traceparent",) if name in metadata}
        call = Call({**traced, "x-request-id": id}, None, dict(request.input), id)
        size = sum(map(len, request.input.values()))
        with self._present(metadata.get("authorization", ""), id, size):
            return await self._answer(served, call, rest.timeout_of(metadata))

    @contextlib.contextmanager
    def _present(self, authorization: str, id: str, size: int) -> Iterator[None]:
        """The time of a request of ``size`` bytes. Raises Refused if it may not be served now."""
        with self._access.admitted(authorization) as client:
            if size <= SMALL_BYTES:
                yield
                return
            # Without keys the front cannot tell clients apart: they come through a proxy.
            with self._uploads.counted(client or id, size):
                yield

    async def _answer(self, served: Served, call: Call, timeout: float | None) -> Reply:
        reply = await served.answer(call, timeout, self._health.down_for)
        if reply.code == 200:
            self._health.succeeded(served.name, reply.weights)
        return reply

    def _read(self, route: str, model: str | None) -> Response:
        if route == "livez":
            return JSONResponse({"live": True})
        if route == "models":
            return JSONResponse({"models": list(map(self._entry, self._models.values()))})
        if route == "ping":
            ready = self._health.ready
            return JSONResponse({"status": "Healthy" if ready else "Unhealthy"}, _code(ready))
        if model is None:
            report = self._health.report()
        elif model in self._models:
            report = self._health.report_model(model)
        else:
            raise Refused(404, "ModelNotFound", f"no model {model!r} is served here")
        return JSONResponse(report, _code(report["ready"]))

    def _entry(self, served: Served) -> dict[str, Any]:
        return {
            "name": served.name,
            "task": served.task,
            "weights": self._health.weights(served.name),
            "version": served.version,
            "ready": self._health.report_model(served.name)["ready"],
            "options": served.options,
        }

    def _served(self, name: str, version: str | None) -> Served:
        if self._refuses:
            raise Refused(503, "Unavailable", "the server is about to end: try again", 5)
        if name not in self._models:
            raise self._unknown(name)
        served = self._models[name]
        if version not in (None, served.version):
            raise no_version(name, str(version), [served.version])
        return served

    def _unknown(self, name: str) -> Refused:
        models = ", ".join(self._models)
        return Refused(404, "ModelNotFound", f"there is no model {name!r}: there are {models}")

    def _status(self, service: str) -> int | None:
        statuses = health_pb2.HealthCheckResponse.ServingStatus
        ready = self._health.find(service)
        return None if ready is None else int(statuses.SERVING if ready else statuses.NOT_SERVING)

    def _watch(self) -> None:
        """Start the tasks that watch the models, on the event loop of the requests."""
        if not self._tasks:
            watching = [count_replicas(self._models, self._health, APPLICATION)]
            watching += [send_canaries(each, self._health) for each in self._models.values()]
            self._tasks = list(map(asyncio.create_task, watching))


def _allow(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise Refused(
            405, "MethodNotAllowed", "predictions take POST and PUT, the other routes GET"
        )


def _code(ready: bool) -> int:
    return 200 if ready else 503


def _finish(grpc_context: RayServegRPCContext, reply: Reply, id: str) -> None:
    """Set the status and the trailing metadata of a call."""
    metadata = {
        "x-request-id": id,
        "x-model-weights": reply.weights,
        "x-model-version": reply.version,
        "x-error-type": reply.error,
        "retry-after": str(reply.retry_after or ""),
    }
    grpc_context.set_trailing_metadata([(name, value) for name, value in metadata.items() if value])
    if reply.code != 200:
        grpc_context.set_code(_STATUS[GRPC_STATUS[reply.code]])
        grpc_context.set_details(reply.body.decode())
