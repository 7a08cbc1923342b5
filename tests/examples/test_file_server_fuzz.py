"""What is no request, or hardly one, at the file server: as data, and made up by hypothesis."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import file_servers
import pytest
from file_servers import (
    DATA,
    DIGITS,
    Client,
    Reply,
    Request,
    RequestParser,
    Server,
    request,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from pathlib import Path

FUZZ = settings(max_examples=100)


running, site = file_servers.running, file_servers.site


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fuzz")
    (root / "digits.txt").write_bytes(DIGITS)
    (root / "data.bin").write_bytes(DATA)
    return root


def head(line: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([line, *fields, b"", b""])


def asked(target: bytes) -> bytes:
    return head(b"GET " + target + b" HTTP/1.1", b"Host: x")


def field(line: bytes) -> bytes:
    return head(b"GET /digits.txt HTTP/1.1", b"Host: x", line)


def body(fields: bytes, data: bytes) -> bytes:
    return head(b"POST /digits.txt HTTP/1.1", b"Host: x", fields) + data


# After which the connection goes on.
KEPT = {
    asked(b"/digits.txt"): 200,
    asked(b"/data.bin"): 200,
    asked(b"/nothing"): 404,
    asked(b"http://x/digits.txt"): 200,
    asked(b"http://x:80"): 200,
    asked(b"/#digits.txt"): 200,
    asked(b"*"): 404,
    b"\r\n" + asked(b"/digits.txt"): 200,
    b"\r\n\n\r\n" + asked(b"/digits.txt"): 200,
    # Two spaces, which llhttp lets pass.
    asked(b" /digits.txt"): 200,
    field(b"X:x"): 200,
    field(b"X:"): 200,
    field(b"X: \t x \t "): 200,
    field(b'X: \xff\xc3\xa9\t"\\'): 200,
    field(b"!#$%&'*+-.^_`|~09azAZ: x"): 200,
    field(b"Content-Length: 0"): 200,
    head(b"GET /digits.txt HTTP/1.1", b"hOST: x"): 200,
    head(b"GET /digits.txt HTTP/1.1", b"Host:"): 200,
    head(b"GET /digits.txt HTTP/1.1", b"Host: [::1]:80"): 200,
    head(b"GET /digits.txt HTTP/1.1", b"Host: a-b_c.example.:80"): 200,
    head(b"GET /digits.txt HTTP/1.0", b"Connection: keep-alive"): 200,
    head(b"OPTIONS * HTTP/1.1", b"Host: x"): 405,
    head(b"DELETE /digits.txt HTTP/1.1", b"Host: x"): 405,
    head(b"M-SEARCH * HTTP/1.1", b"Host: x"): 405,
}
# After which it ends, as what comes then might be something else than it looks.
ENDED = {
    field(b"Connection: close"): 200,
    head(b"GET /digits.txt HTTP/1.0"): 200,
    head(b"CONNECT x:80 HTTP/1.1", b"Host: x:80"): 405,
    field(b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk"): 200,
    # Bodies, whole and broken.
    body(b"Content-Length: 2", b"xx"): 405,
    body(b"Content-Length: 00", b""): 405,
    body(b"Transfer-Encoding: chunked", b"0\r\n\r\n"): 405,
    body(b"Transfer-Encoding: chunked", b"1;a=b\r\nx\r\n0\r\nA: b\r\n\r\n"): 405,
    body(b"Transfer-Encoding: chunked", b"xyz\r\n"): 405,
    body(b"Transfer-Encoding: chunked", b"-1\r\nx\r\n0\r\n\r\n"): 405,
    body(b"Transfer-Encoding: chunked", b"1\nx\n0\n\n"): 405,
    body(b"Transfer-Encoding: chunked", b"1\r\nxx\r\n0\r\n\r\n"): 405,
    body(b"Transfer-Encoding: chunked", b"ffffffffffffffffff\r\nx"): 405,
    body(b"Transfer-Encoding: xchunked", b"0\r\n\r\n"): 405,
    body(b"Transfer-Encoding: identity", b""): 405,
}
# A method of some other protocol, or none: RFC 9110, section 9.1, would have 501 for it.
UNKNOWN = [
    b"get /digits.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GETS /digits.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    b"FROBNICATE / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"X" * 32 + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"EHLO x\r\n",
]
MALFORMED = [
    # Other protocols.
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x12\x04\0\0\0\0\0",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"\0\0\0\0",
    b"nonsense\r\n\r\n",
    b"X" * 33 + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    # Request lines.
    b" GET /digits.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    b"G\xc3\x89T /digits.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET\t/digits.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /digits.txt HTTP/1.1\nHost: x\n\n",
    b"GET /digits.txt HTTP/1.1\rHost: x\r\r",
    b"GET /digits.txt\rHTTP/1.1\r\nHost: x\r\n\r\n",
    head(b"GET HTTP/1.1", b"Host: x"),
    head(b"GET /digits.txt HTTP/1.1 ", b"Host: x"),
    head(b"GET /digits.txt  x HTTP/1.1", b"Host: x"),
    head(b"GET /digits.txt http/1.1", b"Host: x"),
    head(b"GET /digits.txt HTTP/1.10", b"Host: x"),
    head(b"GET /digits.txt HTTP/1.2", b"Host: x"),
    head(b"GET /digits.txt HTTP/1", b"Host: x"),
    head(b"GET /digits.txt HTTP/3.0", b"Host: x"),
    head(b"GET /digits.txt HTTP/+1.1", b"Host: x"),
    head(b"GET /digits.txt HTP/1.1", b"Host: x"),
    # Targets.
    asked(b"digits.txt"),
    asked(b"x:80"),
    asked(b"?digits.txt"),
    asked(b"http:/digits.txt"),
    asked(b"/\0"),
    asked(b"/digits.txt\t"),
    asked(b"/\x7f"),
    asked("/é".encode()),
    asked(b"/?\xff"),
    # Hosts.
    head(b"GET /digits.txt HTTP/1.1"),
    head(b"GET /digits.txt HTTP/1.1", b"Host: x", b"Host: x"),
    head(b"GET /digits.txt HTTP/1.1", b"Host: x", b"host: y"),
    head(b"GET /digits.txt HTTP/1.1", b"Host: x", b"Host:"),
    head(b"GET /digits.txt HTTP/1.1", b"Host:", b"Host:"),
    head(b"GET /digits.txt HTTP/1.1", b"Host: x y"),
    head(b"GET /digits.txt HTTP/1.1", b"Host: x/y"),
    head(b"GET /digits.txt HTTP/1.1", b"Host: x@y"),
    head(b"GET /digits.txt HTTP/1.1", b"Host: \xff"),
    head(b"GET /digits.txt HTTP/1.0", b"Host: x", b"Host: x"),
    # Fields.
    head(b"GET /digits.txt HTTP/1.1", b" Host: x"),
    head(b"GET /digits.txt HTTP/1.1", b"Host : x"),
    head(b"GET /digits.txt HTTP/1.1", b"Host\t: x"),
    head(b"GET /digits.txt HTTP/1.1", b"Host: x", b" y"),
    field(b"X: a\r\n b"),
    field(b"X: a\r\n\tb"),
    field(b"X"),
    field(b": x"),
    field(b"X y: z"),
    field(b"X\xff: y"),
    field(b"X\0: y"),
    field(b"X(: y"),
    field(b"X: a\rb"),
    field(b"X: a\nY: b"),
    field(b"X: a\0b"),
    field(b"X: a\x01b"),
    field(b"X: a\x7fb"),
    # How long a body is.
    field(b"Content-Length:"),
    field(b"Content-Length: -1"),
    field(b"Content-Length: +1"),
    field(b"Content-Length: 0x1"),
    field(b"Content-Length: 1 1"),
    field(b"Content-Length: 1, 1"),
    field(b"Content-Length: 1e1"),
    field(b"Content-Length: \xd9\xa1"),
    field(b"Content-Length: 18446744073709551616"),
    field(b"Content-Length : 1"),
    field(b"Content-Length: 1\r\nContent-Length: 1"),
    field(b"Content-Length: 1\r\nContent-Length: 2"),
    field(b"Content-Length: 1\r\nTransfer-Encoding: chunked"),
    field(b"Transfer-Encoding: chunked\r\nContent-Length: 1"),
    field(b"Transfer-Encoding: chunked, gzip"),
    field(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    field(b"Transfer-Encoding : chunked"),
    field(b"Transfer-Encoding:\x0bchunked"),
]
# Versions that there are, but not here. That of 1991 has no version in its line.
OLD_AND_NEW = [
    head(b"GET /digits.txt"),
    head(b"GET /digits.txt HTTP/0.9", b"Host: x"),
    head(b"GET /digits.txt HTTP/2.0", b"Host: x"),
]
LAST = ENDED | dict.fromkeys(MALFORMED, 400) | dict.fromkeys(OLD_AND_NEW, 505)


def answers(client: Client, *pieces: bytes, server: Server | None = None) -> list[Reply]:
    """Send bytes piece by piece, each when the one before has arrived, and read all answers."""
    for piece in pieces:
        client.send(piece)
        if server is not None:
            server.settle()
    client.end()
    return client.replies()


def short(vector: bytes) -> str:
    return ascii(vector[:40])[2:-1]


@pytest.mark.parametrize("vector", KEPT, ids=short)
def test_what_is_a_request_is_answered_and_the_next_one_too(site: Server, vector: bytes) -> None:
    with site.connect() as client:
        replies = answers(client, vector + vector + asked(b"/digits.txt"))

    assert [reply.status for reply in replies] == [KEPT[vector], KEPT[vector], 200]
    assert replies[-1].body == DIGITS


@pytest.mark.parametrize("vector", LAST, ids=short)
def test_what_might_be_misunderstood_is_the_last_of_its_connection(
    site: Server, vector: bytes
) -> None:
    with site.connect() as client:
        replies = answers(client, asked(b"/digits.txt") + vector + asked(b"/digits.txt"))

    assert [reply.status for reply in replies] == [200, LAST[vector]]
    assert replies[-1].is_last


@pytest.mark.parametrize("vector", UNKNOWN, ids=short)
def test_a_method_that_nobody_knows_is_refused_as_those_that_are_known(
    site: Server, vector: bytes
) -> None:
    with site.connect() as client:
        [reply] = answers(client, vector + asked(b"/digits.txt"))

    assert (reply.status, reply.is_last) == (405, True)
    assert reply.fields["allow"] == "GET, HEAD"


# Cut into pieces


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    """Requests in a row, and the status that each of them gets."""
    kept = draw(st.lists(st.sampled_from(list(KEPT)), max_size=5))
    last = draw(st.sampled_from(list(LAST)))
    return b"".join([*kept, last]), [*(KEPT[vector] for vector in kept), LAST[last]]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[first:end] for first, end in pairwise(bounds) if first < end]


PLACES = st.lists(st.integers(0, 1 << 16), max_size=4)


@given(stream=streams(), places=PLACES)
@FUZZ
def test_requests_may_come_in_any_pieces(
    site: Server, stream: tuple[bytes, list[int]], places: list[int]
) -> None:
    data, expected = stream
    with site.connect() as client:
        replies = answers(client, *cut(data, places), server=site)

    assert [reply.status for reply in replies] == expected
    assert [reply.is_last for reply in replies[:-1]] == [False] * (len(replies) - 1)


def test_a_request_may_come_byte_by_byte(site: Server) -> None:
    data = request("/digits.txt", "Range: bytes=2-3") + request("/nothing")

    with site.connect() as client:
        replies = answers(client, *(data[n : n + 1] for n in range(len(data))), server=site)

    assert [reply.status for reply in replies] == [206, 404]
    assert replies[0].body == DIGITS[2:4]


# Anything

TOKENS = st.sampled_from(
    [
        *(
            b"GET",
            b"POST",
            b"PRI",
            b" ",
            b"/",
            b"/digits.txt",
            b"*",
            b"%2e",
            b"?",
            b"HTTP/",
            b"1.1",
        ),
        *(b"\r\n", b"\r", b"\n", b"\t", b"\0", b"\xff", b":", b"0", b"1", b"9" * 30, b"x" * 300),
        *(b"Host", b"Host: x\r\n", b"Content-Length", b"Transfer-Encoding: chunked", b"Upgrade: x"),
        *(b"Connection: ", b"close", b"keep-alive", b"Expect: 100-continue", b"Range: bytes=0-1,"),
        *(b" HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n"),
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Requests in which some bytes are others, or missing, or too many."""
    data = bytearray(draw(streams())[0])
    for place in draw(st.lists(st.integers(0, 1 << 16), min_size=1, max_size=4)):
        first = place % len(data)
        data[first : first + draw(st.integers(0, 3))] = draw(TOKENS | st.binary(max_size=2))
    return bytes(data)


ANYTHING = st.one_of(
    st.binary(max_size=100), st.lists(TOKENS, max_size=20).map(b"".join), damaged()
)


@given(data=ANYTHING, places=PLACES)
@FUZZ
def test_any_bytes_get_answers_and_an_end(site: Server, data: bytes, places: list[int]) -> None:
    with site.connect() as client:
        replies = answers(client, *(cut(data, places) if data else []), server=site)

    # That they are whole and well-formed is what the client has seen to.
    assert not any(reply.is_last for reply in replies[:-1])
    assert {reply.status for reply in replies} <= STATUSES
    assert site.complaints.take() == []


STATUSES = {200, 206, 301, 304, 400, 404, 405, 412, 413, 414, 416, 417, 431, 505}


class Forgetful(dict[bytes, Request]):
    """Remembers nothing."""

    def __setitem__(self, data: bytes, request: Request) -> None:
        pass


def parsed(
    pieces: list[bytes], known: dict[bytes, Request] | None = None
) -> list[tuple[object, ...]]:
    """Return what there is to a connection's requests, to the last one that is answered."""
    parser = RequestParser(1 << 16, Forgetful() if known is None else known)
    found: list[tuple[object, ...]] = []
    for piece in pieces:
        parser.feed(piece)
        if not all(each.keep_alive for each in parser.requests):
            break
    for each in parser.requests:
        found.append((each.method, each.target, each.fields, each.version, each.error))
        if not each.keep_alive:
            break
    return found


@given(data=ANYTHING.filter(bool), places=PLACES)
@example(data=b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET", places=[30])
@settings(FUZZ, max_examples=300)
def test_the_parser_finds_the_same_in_any_pieces(data: bytes, places: list[int]) -> None:
    whole, pieces = parsed([data]), parsed(cut(data, places))

    assert len(whole) == len(pieces)
    for one, other in zip(whole, pieces, strict=True):
        if not (one[-1] and other[-1]):
            assert one == other
        else:
            # How much there is of what is refused may differ, and so, whether what there is might
            # be a method.
            assert one[-1] == other[-1] or {one[-1], other[-1]} == {400, 405}


PLAIN = [asked(b"/"), asked(b"/a"), head(b"GET / HTTP/1.1", b"Host: x", b"Accept-Encoding: br")]


@given(
    pieces=st.lists(
        st.one_of(st.sampled_from(PLAIN), TOKENS, ANYTHING.filter(bool)), min_size=1, max_size=8
    )
)
@example(pieces=[asked(b"/"), b"\r\n\r\n", asked(b"/")])
@example(pieces=[b"GET / HTTP/1.1\r\nHost: x\r\nRange: ", PLAIN[0], PLAIN[0]])
@settings(FUZZ, max_examples=300)
def test_a_request_that_is_known_again_is_what_it_was(pieces: list[bytes]) -> None:
    known: dict[bytes, Request] = {}

    rounds = [parsed(pieces, known) for _ in range(3)]

    assert rounds == [parsed(pieces)] * 3


def test_only_whole_short_plain_requests_are_remembered() -> None:
    known: dict[bytes, Request] = {}
    others = [
        b"\r\n\r\n",
        asked(b"/") * 2,
        asked(b"/" + b"x" * 1024),
        field(b"Range: bytes=0-1"),
        field(b"Connection: close"),
        head(b"HEAD / HTTP/1.1", b"Host: x"),
        head(b"GET / HTTP/1.0", b"Connection: keep-alive"),
    ]

    for data in others:
        parsed([asked(b"/"), data], known)

    assert [*known] == [asked(b"/")]


def test_what_is_remembered_has_a_bound() -> None:
    known: dict[bytes, Request] = {}

    for number in range(5000):
        parsed([asked(b"/%d" % number)], known)

    assert 0 < len(known) <= 1024
    assert asked(b"/4999") in known
