"""A page of downloads with live progress, on aiohttp: `python examples/aiohttp_app.py [DIR]`."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress

from aiohttp import web
from download_site import HEADERS, PAGE, Folder, attachment, opened_site
from downloads import EVENT_SECONDS, Downloads

import asend
from asend.aiohttp import FileResponse

DESCRIPTION = "A page of downloads with live progress, on aiohttp."
# A client may be as slow as it likes, as long as it goes on reading.
LIMITS = asend.Limits(stall=60)
# Seconds for what is still being answered after Ctrl+C.
SHUTDOWN_SECONDS = 3

FOLDER = web.AppKey("FOLDER", Folder)
DOWNLOADS = web.AppKey("DOWNLOADS", Downloads)

routes = web.RouteTableDef()


@routes.get("/")
async def show_page(request: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


@routes.get("/api/files")
async def list_files(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(request.app[FOLDER].files))


@routes.get("/api/downloads")
async def list_downloads(request: web.Request) -> web.Response:
    return web.json_response(request.app[DOWNLOADS].status())


@routes.get("/files/{name}")
async def send_file(request: web.Request) -> web.StreamResponse:
    name, page = request.match_info["name"], request.query.get("page", "")
    path = await asyncio.to_thread(request.app[FOLDER].find, name)
    if path is None:
        raise web.HTTPNotFound
    headers = {"Content-Disposition": attachment(name)}
    async with request.app[DOWNLOADS].follow(name, page) as download:

        def progress(nbytes: int) -> None:
            # By now the response knows which bytes it promises.
            download.expect(response.headers)
            download.advance(nbytes)

        # In a folder of anyone's, `x.gz` need not be `x`.
        response = FileResponse(
            path, headers=headers, limits=LIMITS, progress=progress, encodings=()
        )
        # Where a client left, or was too slow, its page is told; there is nothing else to do.
        with suppress(ConnectionError):
            await response.prepare(request)
    return response


@routes.get("/events", allow_head=False)
async def send_events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    async with aclosing(request.app[DOWNLOADS].events(request.query.get("page", ""))) as events:
        async for event in events:
            try:
                async with asyncio.timeout(EVENT_SECONDS):
                    await response.write(event)
            except (ConnectionError, TimeoutError):
                if request.transport is not None:
                    request.transport.abort()
                break
    return response


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that every response has."""
    response.headers.update(HEADERS)


async def on_shutdown(app: web.Application) -> None:
    app[DOWNLOADS].close()


def make_app(folder: Folder) -> web.Application:
    app = web.Application()
    app[FOLDER] = folder
    app[DOWNLOADS] = Downloads()
    app.add_routes(routes)
    app.on_response_prepare.append(on_prepare)
    app.on_shutdown.append(on_shutdown)
    return app


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop where that is installed, else of asyncio."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def main() -> None:
    with opened_site("aiohttp_app", DESCRIPTION) as (folder, listener):
        web.run_app(
            make_app(folder),
            sock=listener,
            loop=new_event_loop(),
            print=None,
            shutdown_timeout=SHUTDOWN_SECONDS,
        )


if __name__ == "__main__":
    main()
