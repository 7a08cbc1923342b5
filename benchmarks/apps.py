"""HTTP servers of frameworks, as benchmarks.servers runs them: `with serving(...) as server`.

Each serves the files of a folder under /files, and a small answer under /api beside them. They
differ in framework, event loop and whose file responses they send, asend's or the framework's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .servers import Server, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request
    from starlette.responses import Response


@contextlib.contextmanager
def serving(framework: str, loop: str, whose: str, directory: Path) -> Iterator[Server]:
    """Run a server while the context is open."""
    command = [sys.executable, "-m", "benchmarks.apps", framework, loop, whose, str(directory)]
    with running(command) as process:
        assert process.stdout is not None
        yield Server(process, int(process.stdout.readline()))


def _aiohttp(directory: Path, whose: str) -> Any:
    from aiohttp import web

    import asend.aiohttp

    response = asend.aiohttp.FileResponse if whose == "asend" else web.FileResponse

    async def send(request: web.Request) -> web.StreamResponse:
        return response(directory / request.match_info["name"])

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"answer": 42})

    app = web.Application()
    app.router.add_get("/files/{name}", send)
    app.router.add_get("/api", answer)
    return app


def _starlette(directory: Path, whose: str) -> Any:
    from starlette.applications import Starlette
    from starlette.responses import FileResponse, JSONResponse
    from starlette.routing import Route

    import asend.asgi
    import asend.starlette

    # "middleware": the stock response, in asend's middleware.
    response = asend.starlette.FileResponse if whose == "asend" else FileResponse

    async def send(request: Request) -> Response:
        return response(directory / request.path_params["name"])

    async def answer(request: Request) -> Response:
        return JSONResponse({"answer": 42})

    app = Starlette(routes=[Route("/files/{name}", send), Route("/api", answer)])
    return app if whose == "stock" else asend.asgi.SendfileMiddleware(app)


def _run_aiohttp(app: Any, listener: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
    from aiohttp import web

    web.run_app(app, sock=listener, loop=loop, print=None, access_log=None)


def _run_uvicorn(app: Any, listener: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
    import uvicorn

    config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off")
    loop.run_until_complete(uvicorn.Server(config).serve([listener]))


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("framework", choices=["aiohttp", "starlette"])
    parser.add_argument("loop", choices=["asyncio", "uvloop"])
    parser.add_argument("whose", choices=["asend", "stock", "middleware"])
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    # With its protocol said: asyncio sets TCP_NODELAY only where it is.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    print(listener.getsockname()[1], flush=True)
    if arguments.loop == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    if arguments.framework == "aiohttp":
        _run_aiohttp(_aiohttp(arguments.directory, arguments.whose), listener, loop)
    else:
        _run_uvicorn(_starlette(arguments.directory, arguments.whose), listener, loop)


if __name__ == "__main__":
    _main()
