"""A page of downloads with live progress, on Starlette: `python examples/asgi_app.py [DIR]`."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn
from download_site import HEADERS, PAGE, Folder, attachment, opened_site
from downloads import EVENT_SECONDS, Downloads
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import asend
from asend.asgi import SendfileMiddleware
from asend.starlette import FileResponse

if TYPE_CHECKING:
    import socket

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

DESCRIPTION = "A page of downloads with live progress, on Starlette."
# A client may be as slow as it likes, as long as it goes on reading.
LIMITS = asend.Limits(stall=60)
# Seconds for what is still being answered after Ctrl+C.
SHUTDOWN_SECONDS = 3
# Connections at a time; more are answered by 503.
MOST_CONNECTIONS = 1000


async def show_page(request: Request) -> Response:
    return HTMLResponse(PAGE)


async def list_files(request: Request) -> Response:
    return JSONResponse(await asyncio.to_thread(request.app.state.folder.files))


async def list_downloads(request: Request) -> Response:
    return JSONResponse(request.app.state.downloads.status())


async def send_file(request: Request) -> ASGIApp:
    name, page = request.path_params["name"], request.query_params.get("page", "")
    path = await asyncio.to_thread(request.app.state.folder.find, name)
    if path is None:
        raise HTTPException(404)

    async def followed(scope: Scope, receive: Receive, send: Send) -> None:
        async with request.app.state.downloads.follow(name, page) as download:

            async def send_noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    download.expect(Headers(raw=message["headers"]))
                await send(message)

            headers = {"Content-Disposition": attachment(name)}
            response = FileResponse(path, headers=headers, progress=download.advance)
            await response(scope, receive, send_noting)

    return followed


async def send_events(request: Request) -> Response:
    events = request.app.state.downloads.events(request.query_params.get("page", ""))
    return EventStream(events, media_type="text/event-stream")


class EventStream(StreamingResponse):
    """A response that does not wait for ever until its client reads an event."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(EVENT_SECONDS):
                await send(message)

        with suppress(TimeoutError):
            await super().__call__(scope, receive, send_in_time)


class WithHeaders:
    """Adds the headers that every response has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


def make_app(folder: Folder, downloads: Downloads) -> ASGIApp:
    app = Starlette(
        routes=[
            Route("/", show_page),
            Route("/api/files", list_files),
            Route("/api/downloads", list_downloads),
            Route("/files/{name}", send_file),
            Route("/events", send_events),
        ],
        middleware=[Middleware(WithHeaders)],
    )
    # A path that nothing is at is 404, also if there is something at one that is nearly the same.
    app.router.redirect_slashes = False
    app.state.folder, app.state.downloads = folder, downloads
    # Around all other middleware: from here the way leads to the connection.
    return SendfileMiddleware(app, limits=LIMITS)


class Server(uvicorn.Server):
    """Ends what would not end by itself before it waits for it."""

    def __init__(self, config: uvicorn.Config, downloads: Downloads) -> None:
        super().__init__(config)
        self._downloads = downloads

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._downloads.close()
        await super().shutdown(sockets)


def main() -> None:
    downloads = Downloads()
    with opened_site("asgi_app", DESCRIPTION) as (folder, listener):
        config = uvicorn.Config(
            make_app(folder, downloads),
            lifespan="off",
            limit_concurrency=MOST_CONNECTIONS,
            log_level="warning",
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            ws="none",
        )
        Server(config, downloads).run(sockets=[listener])


if __name__ == "__main__":
    main()
