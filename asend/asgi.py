"""Zero-copy file responses for ASGI applications, on the servers that there are.

`SendfileMiddleware` around an application offers it the extensions `http.response.pathsend` and
`http.response.zerocopysend`. Frameworks that know the first, such as Starlette and FastAPI, use it
by themselves; there is nothing to change in an application.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, TypeAlias

from ._arguments import as_seconds, check_watchers
from ._descriptors import ZEROCOPYSEND
from ._limits import DEFAULT_LIMITS
from ._responses import OURS, PATHSEND, Response

if TYPE_CHECKING:
    from ._limits import Limits

__all__ = ["SendfileMiddleware"]

Message: TypeAlias = MutableMapping[str, object]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Application: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]


class SendfileMiddleware:
    """Sends the files of an ASGI application by `asend.sendfile`, on the connection of its server.

    Wrap the application itself, outside of all other middleware: `app = SendfileMiddleware(app)`,
    not `app.add_middleware(SendfileMiddleware)`. What is in between sees messages only; the way to
    the connection leads through the server's own function.

    Args:
        app: The application.
        timeout: The most seconds for one message that is a file. None: no limit.
        limits: The pace that a client has to keep meanwhile. None: no limit.

    Raises:
        TypeError: `limits` is no `Limits`.
        ValueError: `timeout` is negative.

    Under uvicorn, with httptools or h11, a file goes from the kernel to the client, over TLS in
    blocks; small ones leave with the head of the response. A client that breaks a limit or leaves,
    or a file that ends before its announced length, ends with an aborted connection and one line
    to the logger "asend.asgi"; the application is not told, as uvicorn does not tell it either.

    Under other servers, whose connection is not to be reached, files are read, in a worker thread
    where they are not in the page cache, and sent by messages, for which anyio is needed. All that
    can be done about a slow client there is to raise TimeoutError to the application.

    A `pathsend` is all of a body; to send more of it before or after is a RuntimeError to the
    application, as is a path that leads to no regular file. A `zerocopysend` is of a regular file,
    too; its descriptor stays the application's, and a file that ends before `count` is one that
    ended early. A response that announces its length begins with the first of its body.

    Cancellation: if the application is cancelled while it sends a file, the connection is aborted.

    Source: "Zero Copy Send" and "Path Send" in the extensions of the ASGI specification.
    """

    def __init__(
        self,
        app: Application,
        *,
        timeout: float | None = None,
        limits: Limits | None = DEFAULT_LIMITS,
    ) -> None:
        check_watchers(limits, None)
        self._app = app
        self._timeout = as_seconds(timeout)
        self._limits = limits

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Run the application for one connection or request."""
        offered = scope.get("extensions") or {}
        assert isinstance(offered, MutableMapping)
        # Who offers it already, another of these or the server, is nearer to the connection.
        if scope["type"] != "http" or PATHSEND in offered:
            await self._app(scope, receive, send)
            return
        response = Response(scope["method"], send, self._timeout, self._limits)
        mine = {PATHSEND: {OURS: True}, ZEROCOPYSEND: {}}
        await self._app({**scope, "extensions": {**offered, **mine}}, receive, response.send)
        await response.begin()
