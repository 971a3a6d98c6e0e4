"""The page's own small server: static files, and the browser's questions passed to the client.

It listens on loopback only, and answers no other site: a request must name this machine in ``Host``
(another name may have been pointed here), and must come from the page itself or from its user
(``Sec-Fetch-Site``, ``Origin``). Only the page ``/``, which asks nothing, may be linked to.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import webbrowser
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast, get_args

from aiohttp import web

from vision_client.answers import Answer
from vision_client.client import AsyncClient, Format
from vision_client.endpoint import Endpoint
from vision_client.errors import ConnectionFailed, ServerError, TimedOut
from vision_client.health import check_async

HOST = "127.0.0.1"
# More than the picture that the server takes (16 MiB), so that its own words refuse one; beyond
# this, which is the server's limit of a request, it has none.
BODY_BYTES = 24 * 2**20
# Ctrl-C does not wait for answers that nobody will read.
SHUTDOWN_S = 1.0

FORMATS = get_args(Format)
STATIC = Path(__file__).with_name("static")
CLIENT = web.AppKey("client", AsyncClient)

PROTECTION = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",  # a newer version of the page is seen at once
}

# The port may be another than ours: `ssh -L 9000:127.0.0.1:7860` brings the page to a laptop.
_THIS_MACHINE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def serve(client: AsyncClient, port: int, *, open_browser: bool) -> int:
    """Serve the page on ``port`` of 127.0.0.1 until Ctrl-C, and say where; 0 takes a free port.

    ``client`` is closed at the end. The exit status: 0, or 1 where the port cannot be had.
    """
    try:
        return asyncio.run(_serve(client, port, open_browser))
    except KeyboardInterrupt:
        return 0


async def _serve(client: AsyncClient, port: int, open_browser: bool) -> int:
    runner = web.AppRunner(
        application(client),
        access_log=None,
        handler_cancellation=True,  # who has left the page waits for no answer
        shutdown_timeout=SHUTDOWN_S,
    )
    async with client:
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            print(f"port {port} cannot be had: {reason}; choose another", file=sys.stderr)
            return 1
        else:
            url = f"http://{HOST}:{runner.addresses[0][1]}"
            print(f"page       {url}\nasks       {client.endpoint}\nCtrl-C ends it", flush=True)
            if open_browser:
                await asyncio.to_thread(webbrowser.open, url)
            await asyncio.Event().wait()
            return 0
        finally:
            await runner.cleanup()


def application(client: AsyncClient) -> web.Application:
    """The page and its four routes, asking ``client``, which stays the caller's to close."""
    app = web.Application(client_max_size=BODY_BYTES, middlewares=[_own_requests_only, _in_words])
    app[CLIENT] = client
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
    return web.FileResponse(STATIC / "index.html")


async def _about(request: web.Request) -> web.StreamResponse:
    """Where the server is, and of each network the weights or what is wrong."""
    client = request.app[CLIENT]
    models = [asdict(health) for health in await check_async(client)]
    return web.json_response(
        {"server": str(client.endpoint), "advice": _advice(client.endpoint), "models": models}
    )


async def _classify(request: web.Request) -> web.StreamResponse:
    answer = await request.app[CLIENT].classify(
        await request.read(), top_k=_number(request, "top_k")
    )
    return web.json_response(asdict(answer))


async def _translate(request: web.Request) -> web.StreamResponse:
    format = request.query.get("format", "png")
    if format not in FORMATS:  # it becomes a header of the answer
        raise ServerError(
            422, "InvalidOption", f"format must be one of {', '.join(FORMATS)}, not {format!r}"
        )
    answer = await request.app[CLIENT].translate(
        await request.read(),
        size=_number(request, "size"),
        format=cast("Format", format),
        quality=_number(request, "quality"),
    )
    return web.Response(
        body=answer.data, content_type=f"image/{format}", headers=_told_beside(answer)
    )


def _told_beside(answer: Answer) -> dict[str, str]:
    told = {
        "x-model-weights": answer.weights,
        "x-request-id": answer.request_id,
        "x-seconds": f"{answer.seconds:.3f}",
    }
    return {name: value for name, value in told.items() if value is not None}


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
    # Browsers send Sec-Fetch-Site with every request; those before 2023 send only Origin, with a
    # POST. Programs such as curl send neither.
    own = f"http://{request.host}"
    site = request.headers.get("sec-fetch-site", "same-origin")
    origin = request.headers.get("origin", own)
    if request.path != "/" and (site not in ("same-origin", "none") or origin != own):
        return _error(403, "ForeignOrigin", "this page answers its own requests, no other site's")
    return await handler(request)


@web.middleware
async def _in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error as the server has them: JSON of code, type and message."""
    try:
        return await handler(request)
    except ServerError as error:
        return _error(error.code, error.type, error.message)
    except ConnectionFailed as error:
        advice = _advice(request.app[CLIENT].endpoint)
        return _error(502, "ConnectionFailed", f"{error}. {advice}")
    except TimedOut as error:
        return _error(504, "TimedOut", str(error))
    except (OSError, ValueError) as error:  # a token's or an authority's file
        return _error(500, type(error).__name__, str(error))
    except web.HTTPRequestEntityTooLarge:
        message = f"the picture has more than {BODY_BYTES} bytes, more than any server here takes"
        return _error(413, "TooLarge", message)
    except web.RequestPayloadError:  # as of a wrong Content-Encoding
        return _error(400, "BadRequest", "the body cannot be read as its headers say")
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
