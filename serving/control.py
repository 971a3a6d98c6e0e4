"""The supervisor's endpoints: health, models and metrics over HTTP, health over gRPC.

They run with the canaries on an event loop in a thread of their own, so they answer even if other
processes of the server hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

from aiohttp import web

from serving.canary import Canary
from serving.errors import ServingError
from serving.health import Health
from serving.metrics.exposition import CONTENT_TYPE, Metrics
from serving.plan import Plan
from serving.rollout import Rollouts
from serving.rollout_api import RolloutApi
from serving.sockets import Sockets
from serving.versions import Served, Versions

# This process starts child processes while gRPC runs; gRPC's fork handlers would only warn of that.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from google.protobuf import empty_pb2
from grpc_health.v1 import health_pb2

from vision_client import inference_pb2

WATCH_S = 0.5
# The pause between looks for versions that need canaries.
CANARIES_S = 0.5
END_TIMEOUT_S = 10.0
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Control:
    """Serves ``health`` and ``metrics``; ``extra_handlers`` are further gRPC services.

    ``served`` has the versions that are listed, and get canaries. ``rollouts`` is None without a
    gateway. ``waiting`` is how many requests for a model wait for their turn, if there is a queue.
    """

    def __init__(
        self,
        plan: Plan,
        sockets: Sockets,
        served: Served,
        health: Health,
        metrics: Metrics,
        canary: Canary,
        rollouts: Rollouts | None,
        extra_handlers: Sequence[grpc.GenericRpcHandler] = (),
        waiting: Callable[[str], int] | None = None,
    ) -> None:
        self._waiting = waiting
        self._plan = plan
        self._sockets = sockets
        self._served = served
        self._rollouts = RolloutApi(rollouts, health)
        self._health = health
        self._metrics = metrics
        self._canary = canary
        self._handlers = [*_grpc_handlers(health), *extra_handlers]
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)
        self._started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    def start(self) -> None:
        """Listen; ServingError if an address is not free."""
        self._thread.start()
        try:
            self._started.result()
        except OSError as error:
            raise ServingError(f"cannot listen on {self._plan.config.metrics}: {error}") from error

    def end(self) -> None:
        """Stop listening."""
        if self._thread.is_alive():
            loop, end = self._started.result()
            loop.call_soon_threadsafe(end.set)
            self._thread.join(END_TIMEOUT_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._started.set_exception(error)

    async def _serve(self) -> None:
        end = asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._canary.close)
            stack.enter_context(self._metrics.recorder.listening(self._sockets.reports))
            control = await stack.enter_async_context(_listening(self._app(metrics=False)))
            await web.UnixSite(control, str(self._sockets.control)).start()
            public = await stack.enter_async_context(_listening(self._app(metrics=True)))
            host, port = self._plan.config.addresses["metrics_address"]
            await web.TCPSite(public, host, port).start()
            server = grpc.aio.server()
            server.add_generic_rpc_handlers(self._handlers)
            server.add_insecure_port(f"unix:{self._sockets.admission}")
            await server.start()
            stack.push_async_callback(server.stop, 0)
            self._started.set_result((asyncio.get_running_loop(), end))
            canaries = asyncio.create_task(self._send_canaries())
            await end.wait()
            canaries.cancel()
            await asyncio.gather(canaries, return_exceptions=True)

    async def _send_canaries(self) -> None:
        """Watch every version that is loaded, until cancelled."""
        watching: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                watched = self._served.watched
                for key in watching.keys() - watched.keys():
                    watching.pop(key).cancel()
                for key in watched.keys() - watching.keys():
                    watch = self._canary.watch(watched[key], self._health)
                    watching[key] = asyncio.create_task(watch)
                await asyncio.sleep(CANARIES_S)
        finally:
            for task in watching.values():
                task.cancel()
            await asyncio.gather(*watching.values(), return_exceptions=True)

    def _app(self, *, metrics: bool) -> web.Application:
        app = web.Application(middlewares=[_errors_as_json])
        app.add_routes(
            [
                web.get("/livez", self._live),
                web.get("/readyz", self._ready),
                web.get("/readyz/{model}", self._model_ready),
                web.get("/models", self._models),
                web.get("/ping", self._ping),
                web.route("*", "/predictions/{model}{version:.*}", self._unknown),
            ]
        )
        if metrics:
            app.add_routes([web.get("/metrics", self._scrape)])
        else:
            app.add_routes([web.get("/queues", self._queues), web.get("/versions", self._versions)])
            app.add_routes(self._rollouts.routes)
        return app

    async def _live(self, _: web.Request) -> web.Response:
        return web.json_response({"live": True})

    async def _ready(self, _: web.Request) -> web.Response:
        report = self._health.report()
        return web.json_response(report, status=200 if report["ready"] else 503)

    async def _model_ready(self, request: web.Request) -> web.Response:
        model = request.match_info["model"]
        if model not in self._health.models:
            return _error(404, "ModelNotFound", f"no model {model!r} is served here")
        report = self._health.report_model(model)
        return web.json_response(report, status=200 if report["ready"] else 503)

    async def _unknown(self, request: web.Request) -> web.Response:
        """The 404 for an unknown model: the gateway sends such predictions here."""
        models = ", ".join(self._health.models)
        model = request.match_info["model"]
        return _error(404, "ModelNotFound", f"there is no model {model!r}: there are {models}")

    async def _models(self, _: web.Request) -> web.Response:
        defaults = map(self._served.default, self._served.models)
        models = [
            {
                "name": planned.model,
                "task": planned.archive.task,
                "weights": self._health.weights(planned.model),
                "version": planned.version,
                "ready": self._health.report_model(planned.model)["ready"],
                "options": {
                    name: asdict(option) for name, option in planned.archive.options.items()
                },
            }
            for planned in defaults
        ]
        return web.json_response({"models": models})

    async def _versions(self, _: web.Request) -> web.Response:
        """For `make status`: each version, what it is for, and its share of the requests."""
        models = map(self._served.of, self._served.models)
        return web.json_response({v.default.model: self._listed(v) for v in models})

    def _listed(self, versions: Versions) -> list[dict[str, Any]]:
        roles = {
            "default": (versions.default, 1 - versions.share),
            "candidate": (versions.candidate, versions.share),
            "previous": (versions.previous, 0.0),
        }
        return [
            {
                "version": planned.version,
                "role": role,
                "share": share,
                "weights": planned.archive.weights,
                "ready": self._health.is_ready(planned.key),
            }
            for role, (planned, share) in roles.items()
            if planned
        ]

    async def _queues(self, _: web.Request) -> web.Response:
        """For `make status`: null are the requests that wait if there is no gateway."""
        queues = {
            planned.model: {
                "waiting": self._waiting(planned.model) if self._waiting else None,
                "limit": planned.queue,
            }
            for planned in self._plan.models
        }
        return web.json_response(queues)

    async def _ping(self, _: web.Request) -> web.Response:
        ready = self._health.ready
        status = "Healthy" if ready else "Unhealthy"
        return web.json_response({"status": status}, status=200 if ready else 503)

    async def _scrape(self, _: web.Request) -> web.Response:
        body = await self._metrics.text()
        return web.Response(body=body, headers={"content-type": CONTENT_TYPE})


@contextlib.asynccontextmanager
async def _listening(app: web.Application) -> AsyncIterator[web.AppRunner]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()


def _error(code: int, type_: str, message: str) -> web.Response:
    body = {"code": code, "type": type_, "message": message}
    return web.json_response(body, status=code, headers={"x-error-type": type_})


@web.middleware
async def _errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return _error(404, "NotFound", f"no route {request.path}")
    except web.HTTPMethodNotAllowed:
        return _error(405, "MethodNotAllowed", f"{request.path} is read with GET")


def _grpc_handlers(health: Health) -> list[grpc.GenericRpcHandler]:
    """grpc.health.v1, and TorchServe's Ping."""
    serving = health_pb2.HealthCheckResponse.ServingStatus

    def status(service: str) -> int | None:
        """The status of a model, or of the server if ``service`` is empty; None if unknown."""
        ready = health.find(service)
        return None if ready is None else int(serving.SERVING if ready else serving.NOT_SERVING)

    async def check(request: Any, context: Any) -> Any:
        found = status(request.service)
        if found is None:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"no model {request.service!r} is served here"
            )
        return health_pb2.HealthCheckResponse(status=found)

    async def watch(request: Any, _: Any) -> AsyncIterator[Any]:
        last = None
        while True:
            found = status(request.service)
            found = int(serving.SERVICE_UNKNOWN) if found is None else found
            if found != last:
                last = found
                yield health_pb2.HealthCheckResponse(status=found)
            await asyncio.sleep(WATCH_S)

    async def ping(_: Any, __: Any) -> Any:
        return inference_pb2.TorchServeHealthResponse(
            health="Healthy" if health.ready else "Unhealthy"
        )

    request_types = {
        "request_deserializer": health_pb2.HealthCheckRequest.FromString,
        "response_serializer": health_pb2.HealthCheckResponse.SerializeToString,
    }
    return [
        grpc.method_handlers_generic_handler(
            "grpc.health.v1.Health",
            {
                "Check": grpc.unary_unary_rpc_method_handler(check, **request_types),
                "Watch": grpc.unary_stream_rpc_method_handler(watch, **request_types),
            },
        ),
        grpc.method_handlers_generic_handler(
            "org.pytorch.serve.grpc.inference.InferenceAPIsService",
            {
                "Ping": grpc.unary_unary_rpc_method_handler(
                    ping,
                    request_deserializer=empty_pb2.Empty.FromString,
                    response_serializer=inference_pb2.TorchServeHealthResponse.SerializeToString,
                )
            },
        ),
    ]
