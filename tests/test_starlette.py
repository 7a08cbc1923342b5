"""`asend.starlette.FileResponse` on uvicorn: statuses, ranges, fields, and by the kernel."""

from __future__ import annotations

import asyncio
import email
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from asgi_servers import (
    KINDS,
    ON_UVICORN,
    Client,
    Server,
    lines,
)
from conftest import DATA
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse as StockResponse
from starlette.routing import Route

from asend import Limits
from asend.asgi import SendfileMiddleware
from asend.http import FILES
from asend.starlette import FileResponse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZE = len(DATA)
ON_ONE = pytest.mark.parametrize("kind", KINDS[-2:-1], ids="-".join, indirect=True)
ON_ALL_WAYS = pytest.mark.parametrize("wrapped", [True, False], ids=["wrapped", "bare"])


def application(path: Path, *middleware: Any, wrapped: bool = True, **options: Any) -> Any:
    async def endpoint(request: Any) -> FileResponse:
        return FileResponse(path, **options)

    methods = ["GET", "HEAD", "POST"]
    routes = [Route("/", endpoint, methods=methods)]
    app = Starlette(routes=routes, middleware=[Middleware(*each) for each in middleware])
    return SendfileMiddleware(app) if wrapped else app


def file_fields(path: Path) -> tuple[str, str]:
    async def ask() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        sent: list[Any] = []
        scope = {"type": "http", "method": "HEAD", "headers": []}
        await FileResponse(path)(scope, None, send)  # type: ignore[arg-type]  # nothing is received
        fields.update({key.decode(): value.decode() for key, value in sent[0]["headers"]})

    fields: dict[str, str] = {}
    asyncio.run(ask())
    FILES.clear()
    return fields["etag"], fields["last-modified"]


# The fields of a request, with {etag}, {date} and {size} of the file; the status; and the parts.
REQUESTS: dict[str, tuple[dict[str, str], int, list[tuple[int, int]]]] = {
    "whole": ({}, 200, [(0, SIZE)]),
    "first": ({"Range": "bytes=0-0"}, 206, [(0, 1)]),
    "middle": ({"Range": "bytes=1000-2000999"}, 206, [(1000, 2001000)]),
    "from": ({"Range": "bytes=5-"}, 206, [(5, SIZE)]),
    "last": ({"Range": "bytes=-7"}, 206, [(SIZE - 7, SIZE)]),
    "more-than-all": ({"Range": f"bytes=-{10 * SIZE}"}, 206, [(0, SIZE)]),
    "beyond-its-end": ({"Range": f"bytes=9-{10 * SIZE}"}, 206, [(9, SIZE)]),
    "several": (
        {"Range": "bytes=5-9, 100-300000,-3"},
        206,
        [(5, 10), (100, 300001), (SIZE - 3, SIZE)],
    ),
    "overlapping": ({"Range": "bytes=50-99,0-60"}, 206, [(0, 100)]),
    "some": ({"Range": f"bytes={SIZE}-,0-4"}, 206, [(0, 5)]),
    "unit": ({"Range": "lines=1-2"}, 200, [(0, SIZE)]),
    "too-many": ({"Range": "bytes=" + ",".join(["0-0"] * 101)}, 200, [(0, SIZE)]),
    "after-the-end": ({"Range": f"bytes={SIZE}-"}, 416, []),
    "nothing": ({"Range": "bytes=-0"}, 416, []),
    "reversed": ({"Range": "bytes=5-2"}, 400, []),
    "no-number": ({"Range": "bytes=a-b"}, 400, []),
    "no-range": ({"Range": "bytes="}, 400, []),
    "dash": ({"Range": "bytes=-"}, 400, []),
    "if-range": ({"Range": "bytes=0-4", "If_Range": "{etag}"}, 206, [(0, 5)]),
    "if-range-date": ({"Range": "bytes=0-4", "If_Range": "{date}"}, 206, [(0, 5)]),
    "if-range-other": ({"Range": "bytes=0-4", "If_Range": '"other"'}, 200, [(0, SIZE)]),
    "none-match": ({"If_None_Match": '"a", {etag}'}, 304, []),
    "none-match-other": ({"If_None_Match": '"a"'}, 200, [(0, SIZE)]),
    "modified-since": ({"If_Modified_Since": "{date}"}, 304, []),
    "match": ({"If_Match": "{etag}"}, 200, [(0, SIZE)]),
    "match-other": ({"If_Match": '"a"'}, 412, []),
    "unmodified-since": ({"If_Unmodified_Since": "Thu, 01 Jan 1970 00:00:00 GMT"}, 412, []),
}


@ON_UVICORN
@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_answered(server: Server, path: Path, name: str, by_kernel: list[int]) -> None:
    fields, status, parts = REQUESTS[name]
    etag, date = file_fields(path)
    fields = {key: value.format(etag=etag, date=date) for key, value in fields.items()}
    server.app = application(path, media_type="text/plain")

    with Client(server) as client:
        replies = {method: client.get(method=method, **fields) for method in ("GET", "HEAD")}
        again = client.get()

    reply = replies["GET"]
    assert (reply.status, replies["HEAD"].status) == (status, status)
    assert contents(reply) == [DATA[first:end] for first, end in parts]
    assert again.body == DATA
    assert replies["HEAD"].body == b""
    assert replies["HEAD"]["content-length"] == reply["content-length"]
    if status in (200, 206, 304):
        assert (reply["etag"], reply["last-modified"]) == (etag, date)
    if status == 416:
        assert reply["content-range"] == f"bytes */{SIZE}"
    if status == 304:
        assert reply["content-length"] is None
    server.until_idle()
    # What is small is read, and leaves with its head.
    is_large = len(reply.body) > 65536
    assert sum(by_kernel) == SIZE + (sum(end - first for first, end in parts) if is_large else 0)


def contents(reply: Any) -> list[bytes]:
    kind = reply["content-type"] or ""
    if not kind.startswith("multipart/byteranges"):
        if reply.status == 206:
            first, end, size = map(int, re.findall(r"\d+", reply["content-range"]))
            assert (end + 1 - first, size) == (len(reply.body), SIZE)
        return [reply.body] if reply.body else []
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + reply.body)
    parts = message.get_payload()
    assert all(part.get_content_type() == "text/plain" for part in parts)
    return [part.get_payload(decode=True) for part in parts]


@ON_ONE
@ON_ALL_WAYS
@pytest.mark.parametrize(
    "middleware",
    [(), ((GZipMiddleware,),), ((BaseHTTPMiddleware, lambda request, go_on: go_on(request)),)],
    ids=["none", "gzip", "base"],
)
def test_starlettes_own_middleware_may_be_in_between(
    server: Server, path: Path, middleware: Any, wrapped: bool
) -> None:
    server.app = application(path, *middleware, wrapped=wrapped)

    with Client(server) as client:
        one = client.get(Range="bytes=1000-2000999", Accept_Encoding="identity")
        # Messages of a part are compressed like any other by GZipMiddleware before Starlette 1.0.
        encoding = "gzip" if wrapped else "identity"
        several = client.get(Range="bytes=0-9,1000-200999", Accept_Encoding=encoding)
        whole = client.get(Accept_Encoding="identity")

    assert one.body == DATA[1000:2001000]
    assert DATA[1000:201000] in several.body
    assert whole.body == DATA


@ON_UVICORN
def test_it_is_an_application_by_itself(server: Server, path: Path, by_kernel: list[int]) -> None:
    server.app = FileResponse(path)

    with Client(server) as client:
        assert client.get(Range="bytes=5-").body == DATA[5:]
        assert client.get().body == DATA

    server.until_idle()
    assert sum(by_kernel) == 2 * SIZE - 5


@ON_UVICORN
def test_the_stock_class_is_sent_by_the_kernel_too(
    server: Server, path: Path, by_kernel: list[int]
) -> None:
    async def endpoint(request: Any) -> StockResponse:
        return StockResponse(path)

    server.app = SendfileMiddleware(Starlette(routes=[Route("/", endpoint)]))

    with Client(server) as client:
        assert client.get().body == DATA
        assert client.get(Range="bytes=5-9").body == DATA[5:10]

    server.until_idle()
    assert sum(by_kernel) == SIZE


@ON_UVICORN
@ON_ALL_WAYS
@pytest.mark.parametrize("ranges", [None, "bytes=5-9", "bytes=0-9,500-100499"])
def test_progress_is_told_of_all_of_the_body(
    server: Server, path: Path, wrapped: bool, ranges: str | None
) -> None:
    told: list[int] = []
    server.app = application(path, wrapped=wrapped, progress=told.append, timeout=30)

    with Client(server) as client:
        reply = client.get(**({} if ranges is None else {"Range": ranges}))
    server.until_idle()

    assert sum(told) == len(reply.body)


@ON_UVICORN
@pytest.mark.parametrize("error", [OSError, TimeoutError])
def test_what_progress_raises_comes_out(
    server: Server, path: Path, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    def fail(nbytes: int) -> None:
        raise error("no place to tell it")

    server.app = application(path, progress=fail)

    with Client(server) as client:
        client.ask()
        assert len(client.rest()) < SIZE
    server.until_idle()

    assert [str(error) for error in server.raised] == ["no place to tell it"]
    assert len(lines(caplog)) == 1


@ON_UVICORN
def test_limits_are_those_of_the_response(
    server: Server, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    os.truncate(path, 50_000_000)
    server.app = application(path, limits=Limits(stall=0.1))

    with Client(server) as client:
        client.ask()
        client.head()
        server.until_idle()

    (line,) = lines(caplog)
    assert line.startswith(f"INFO asend.asgi {path}: stalled")


@ON_ONE
def test_fields_of_the_user_are_kept(server: Server, path: Path) -> None:
    date = "Thu, 01 Jan 2026 00:00:00 GMT"
    given = {"ETag": 'W/"mine"', "Last-Modified": date, "Cache-Control": "no-cache"}
    done: list[int] = []
    server.app = application(
        path,
        headers=given,
        media_type="image/png",
        filename="naïve.png",
        background=BackgroundTask(done.append, 1),
    )

    with Client(server) as client:
        reply = client.get()
        not_modified = client.get(If_None_Match='"mine"')
        by_date = client.get(If_Modified_Since=date)
        refused = client.get(If_Match='W/"mine"')
    server.until_idle()

    for name, value in {**given, "Content-Type": "image/png"}.items():
        assert reply[name] == value
    assert reply["content-disposition"] == "attachment; filename*=utf-8''na%C3%AFve.png"
    assert [each.status for each in (not_modified, by_date, refused)] == [304, 304, 412]
    assert not_modified["cache-control"] == "no-cache"
    assert not_modified["content-disposition"] is None
    assert refused["etag"] is None
    assert done == [1] * 4


@ON_ONE
def test_a_date_that_is_none_is_as_if_it_were_not_there(server: Server, path: Path) -> None:
    server.app = application(path, headers={"Last-Modified": "yesterday"})

    with Client(server) as client:
        assert client.get(If_Modified_Since="Thu, 01 Jan 1970 00:00:00 GMT").status == 200


@ON_ONE
def test_a_stat_result_is_what_it_says_of_the_file(server: Server, path: Path) -> None:
    status = path.stat()
    server.app = application(path, stat_result=status)

    with Client(server) as client:
        reply = client.get()

    assert reply.body == DATA
    assert reply["etag"] == StockResponse(path, stat_result=status).headers["etag"]


@ON_ONE
def test_ranges_are_for_get_and_for_200(server: Server, path: Path) -> None:
    with Client(server) as client:
        server.app = application(path)
        posted = client.get(method="POST", Range="bytes=0-4")
        server.app = application(path, status_code=404)
        missing = client.get(Range="bytes=0-4")

    assert [(reply.status, reply.body == DATA) for reply in (posted, missing)] == [
        (200, True),
        (404, True),
    ]


@ON_ONE
def test_a_range_field_that_is_there_twice_is_one_list(server: Server, path: Path) -> None:
    server.app = application(path)

    with Client(server) as client:
        client.ask(Range="bytes=0-4\r\nRange: 10-14")
        reply = client.reply()

    assert [DATA[:5] in reply.body, DATA[10:15] in reply.body] == [True, True]


@ON_ONE
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", "does not exist"),
        ("fifo", "is not a file"),
        ("dir", "is not"),
        ("nul\0", "does not exist"),
    ],
)
def test_what_is_no_file_is_an_error_as_it_is_in_stock(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str, said: str
) -> None:
    if what == "fifo":
        os.mkfifo(tmp_path / what)
    elif what == "dir":
        (tmp_path / what).mkdir()
    server.app = application(tmp_path / what)

    with Client(server) as client:
        assert client.get().status == 500
    server.until_idle()

    (error,) = server.raised
    with pytest.raises(RuntimeError, match=f"File at path .*{what} {said}"):
        raise error
    assert len(lines(caplog)) == 1


def sent_to(
    app: Callable[..., Any], extensions: dict[str, Any] | None, **scope: Any
) -> list[dict[str, Any]]:
    """What an application sends to a server that offers these extensions."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def run() -> None:
        full = {"type": "http", "method": "GET", "headers": [], "extensions": extensions, **scope}
        await app(full, None, send)

    asyncio.run(run())
    FILES.clear()
    return sent


PATHSEND, ZEROCOPYSEND = "http.response.pathsend", "http.response.zerocopysend"


def test_a_server_that_takes_paths_is_given_the_path(path: Path) -> None:
    offered: dict[str, Any] = {PATHSEND: {}}

    whole = sent_to(FileResponse(path), offered)
    head = sent_to(FileResponse(path), offered, method="HEAD")

    assert whole[1:] == [{"type": PATHSEND, "path": str(path)}]
    assert head[1:] == [{"type": "http.response.body", "body": b"", "more_body": False}]


@pytest.mark.parametrize("offered", [None, {PATHSEND: {}}, {PATHSEND: {}, ZEROCOPYSEND: {}}])
def test_what_a_server_cannot_do_is_sent_in_messages(
    path: Path, offered: dict[str, Any] | None
) -> None:
    ranged = sent_to(FileResponse(path), offered, headers=[(b"range", b"bytes=3-999999")])
    told: list[int] = []
    watched = sent_to(FileResponse(path, progress=told.append), offered)

    assert b"".join(message["body"] for message in ranged[1:]) == DATA[3:1000000]
    assert b"".join(message["body"] for message in watched[1:]) == DATA
    assert sum(told) == SIZE


def test_the_refusal_of_a_websocket_is_as_it_was(path: Path) -> None:
    async def receive() -> dict[str, Any]:
        return await asyncio.get_running_loop().create_future()

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    # Starlette before 1.0 asks for the method, which such a scope does not have.
    scope = {"type": "websocket", "method": "GET", "headers": [], "extensions": {}}
    asyncio.run(FileResponse(path)(scope, receive, send))

    assert b"".join(message.get("body", b"") for message in sent) == DATA


def test_wrong_options_are_refused_at_once(path: Path) -> None:
    with pytest.raises(TypeError, match="progress"):
        FileResponse(path, progress=1)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="out of range"):
        FileResponse(path, timeout=-1)
