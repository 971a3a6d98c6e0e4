"""The page's own small server: it serves the static files and passes requests to the client.

It listens on loopback only and serves no other site: ``Host`` must name this machine, which
prevents DNS rebinding, and the request must come from the page itself or from its user
(``Sec-Fetch-Site``, ``Origin``). Other sites may only link to ``/``, which sends nothing to the
server.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import webbrowser
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from aiohttp import web

from vision_client.answers import Answer
from vision_client.client import AsyncClient
from vision_client.endpoint import Endpoint
from vision_client.errors import ConnectionFailed, ServerError, TimedOut
from vision_client.models import MISSING, Model
from vision_client.tasks.translate import FORMATS

HOST = "127.0.0.1"
# The server's limit for a request. Its limit for a picture is lower (16 MiB), so that it is the
# server that refuses most of what is too large, with its own message.
BODY_BYTES = 24 * 2**20
# Ctrl-C does not wait for pending answers.
SHUTDOWN_S = 1.0

# Seconds for the server to say what it serves.
ABOUT_S = 15.0

# What the page offers of the options of the served networks.
CHOICES = {"top_k": range(1, 11), "size": (64, 128, 256, 384, 512, 768, 1024)}

STATIC = Path(__file__).with_name("static")
INDEX = Path(__file__).with_name("index.html")
CLIENT = web.AppKey("client", AsyncClient)
MODELS = web.AppKey("models", Mapping[str, str | None])

PROTECTION = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # show a new version of the page at once
}

# Any port, for tunnels: `ssh -L 9000:127.0.0.1:7860` brings the page to a laptop.
_THIS_MACHINE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(
    client: AsyncClient, models: Mapping[str, str | None], port: int, *, open_browser: bool
) -> int:
    """Serve the page on ``port`` of 127.0.0.1 until Ctrl-C and print its URL; 0 takes a free port.

    ``models`` are names by task, None for the server's first. ``client`` is closed at the end.
    Returns the exit status: 0, or 1 if the port is not available.
    """
    try:
        return asyncio.run(_serve(client, models, port, open_browser))
    except KeyboardInterrupt:
        return 0


async def _serve(
    client: AsyncClient, models: Mapping[str, str | None], port: int, open_browser: bool
) -> int:
    runner = web.AppRunner(
        application(client, models),
        access_log=None,
        handler_cancellation=True,  # stop waiting for an answer when the browser has gone
        shutdown_timeout=SHUTDOWN_S,
    )
    async with client:
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            print(f"port {port} is not available: {reason}; choose another", file=sys.stderr)
            return 1
        else:
            url = f"http://{HOST}:{runner.addresses[0][1]}"
            print(f"page       {url}\nserver     {client.endpoint}\nCtrl-C ends it", flush=True)
            if open_browser:
                await asyncio.to_thread(webbrowser.open, url)
            await asyncio.Event().wait()
            return 0
        finally:
            await runner.cleanup()


def application(client: AsyncClient, models: Mapping[str, str | None]) -> web.Application:
    """The page and its routes. It sends requests with ``client``, which the caller closes."""
    app = web.Application(
        client_max_size=BODY_BYTES, middlewares=[_own_requests_only, _json_errors]
    )
    app[CLIENT] = client
    app[MODELS] = models
    app.add_routes(
        [
            web.get("/", _index),
            web.static("/static", STATIC),
            web.get("/about", _about),
            web.post("/classify", _classify),
            web.post("/translate", _translate),
        ]
    )
    app.on_response_prepare.append(_protect)
    return app


async def _index(request: web.Request) -> web.StreamResponse:
    return web.FileResponse(INDEX)


async def _about(request: web.Request) -> web.StreamResponse:
    """The server's URL, and for each task its model and the choices, or null if it has no model."""
    client, named = request.app[CLIENT], request.app[MODELS]
    names = [name for name in named.values() if name is not None]
    try:
        async with asyncio.timeout(ABOUT_S):
            models = await client.status(*(names if client.endpoint.is_grpc else ()))
    except TimeoutError as error:
        message = f"{client.endpoint} did not say within {ABOUT_S:.0f} s what it serves"
        raise TimedOut(message) from error
    chosen = {task: _chosen(models, task, name) for task, name in named.items()}
    return web.json_response(
        {
            "server": str(client.endpoint),
            "models": {
                task: model and {**asdict(model), "choices": _choices(model)}
                for task, model in chosen.items()
            },
        }
    )


def _choices(model: Model) -> dict[str, list[int]]:
    """What the page offers of each option: values that the model takes, and its default."""
    return {
        name: sorted({option.default, *filter(option.allows, CHOICES[name])})
        for name, option in (model.options or {}).items()
        if name in CHOICES
    }


def _chosen(models: Sequence[Model], task: str, name: str | None) -> Model | None:
    """The model called ``name``, or the first of ``task``."""
    for model in models:
        if model.name == name or (name is None and model.task == task):
            return model
    return None if name is None else Model(name, False, reason=MISSING)


async def _classify(request: web.Request) -> web.StreamResponse:
    answer = await request.app[CLIENT].classify(
        await request.read(),
        model=request.app[MODELS]["classify"],
        top_k=_number(request, "top_k"),
    )
    return web.json_response(asdict(answer))


async def _translate(request: web.Request) -> web.StreamResponse:
    format = request.query.get("format", FORMATS[0])
    if format not in FORMATS:  # checked here because it becomes a header of the response
        raise ServerError(
            422, "InvalidOption", f"format must be one of {', '.join(FORMATS)}, not {format!r}"
        )
    answer = await request.app[CLIENT].translate(
        await request.read(),
        model=request.app[MODELS]["translate"],
        size=_number(request, "size"),
        format=format,
        quality=_number(request, "quality"),
    )
    return web.Response(body=answer.data, content_type=f"image/{format}", headers=_headers(answer))


def _headers(answer: Answer) -> dict[str, str]:
    headers = {
        "x-model-weights": answer.weights,
        "x-request-id": answer.request_id,
        "x-seconds": f"{answer.seconds:.3f}",
    }
    return {name: value for name, value in headers.items() if value is not None}


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise ServerError(
            422, "InvalidOption", f"{name} must be a whole number, not {text!r}"
        ) from None


@web.middleware
async def _own_requests_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    if not _THIS_MACHINE.fullmatch(request.host):
        return _error(421, "MisdirectedRequest", f"this page is at {HOST}, not {request.host}")
    # Browsers send Sec-Fetch-Site with every request; those before 2023 only send Origin, and only
    # with POST. Programs such as curl send neither.
    own = f"http://{request.host}"
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin", own)
    if request.path != "/" and (site not in ("same-origin", "none") or origin != own):
        return _error(403, "ForeignOrigin", "this page answers its own requests, no other site's")
    return await handler(request)


@web.middleware
async def _json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """All errors have the form of the server's: JSON with code, type and message."""
    try:
        return await handler(request)
    except ServerError as error:
        return _error(error.code, error.type, error.message)
    except ConnectionFailed as error:
        advice = _advice(request.app[CLIENT].endpoint)
        return _error(502, "ConnectionFailed", f"{error}. {advice}")
    except TimedOut as error:
        return _error(504, "TimedOut", str(error))
    except (OSError, ValueError) as error:  # of a token file or a CA file
        return _error(500, type(error).__name__, str(error))
    except web.HTTPRequestEntityTooLarge:
        message = f"the picture has more than {BODY_BYTES} bytes, the server's limit for a request"
        return _error(413, "TooLarge", message)
    except web.RequestPayloadError:  # for example a wrong Content-Encoding
        return _error(400, "BadRequest", "the body is not what its headers say")
    except web.HTTPError as error:  # aiohttp's own, such as 404 and 405
        answer = _error(
            error.status, error.reason.replace(" ", ""), f"{request.path}: {error.reason}"
        )
        if allowed := error.headers.get("allow"):
            answer.headers["allow"] = allowed
        return answer


def _error(code: int, type: str, message: str) -> web.Response:
    return web.json_response({"code": code, "type": type, "message": message}, status=code)


def _advice(server: Endpoint) -> str:
    if server.is_loopback:
        return "Start the server: make start"
    return "Is the address right, and does the server run?"


async def _protect(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(PROTECTION)
