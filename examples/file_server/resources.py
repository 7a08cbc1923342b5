"""From a request to its response: paths confined to one folder, conditions and ranges.

Everything here may wait for a disk and belongs in a worker thread.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import re
import stat
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from io import FileIO
from urllib.parse import quote, unquote

from listing import Entry, listing_page
from messages import Request, Response, text_response

# The types that Python knows, whatever the machine's own tables say.
TYPES = mimetypes.MimeTypes()
# Errors of the server's, not of the path's.
OVERLOADED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def respond(root: str, request: Request) -> Response:
    """Answer a request for what is below `root`, an absolute path without symlinks.

    What cannot be reached is 404, whatever the reason: nobody learns what there is.
    """
    if request.error is not None:
        return text_response(request.error)
    if request.method not in ("GET", "HEAD"):
        return text_response(HTTPStatus.METHOD_NOT_ALLOWED, Allow="GET, HEAD")
    try:
        return _find(root, request)
    except UnicodeError:
        return text_response(HTTPStatus.NOT_FOUND)
    except OSError as error:
        if error.errno in OVERLOADED:
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE, Retry_After="5")
        return text_response(HTTPStatus.NOT_FOUND)


def _find(root: str, request: Request) -> Response:
    names = _names(request.path)
    path = _resolve(root, names)
    if not os.path.isdir(path):
        if request.path.endswith("/"):
            raise FileNotFoundError(path)
        return _open_file(path, request)
    # Made anew from its names, a location cannot begin with "//" and lead to another host.
    location = "/".join(["", *map(quote, names), ""])
    if not request.path.endswith("/"):
        return text_response(HTTPStatus.MOVED_PERMANENTLY, Location=location)
    try:
        return _open_file(_resolve(root, [*names, "index.html"]), request)
    except FileNotFoundError:
        return listing_page("/".join(["", *names, ""]), _entries(root, names))


def _names(path: str) -> list[str]:
    """Return the names that a path is made of, each percent-decoded once."""
    names = [unquote(name, errors="strict") for name in path.split("/") if name]
    if not path.startswith("/") or not all(map(_is_served, names)):
        raise FileNotFoundError(path)
    return names


def _is_served(name: str) -> bool:
    """Tell whether a name may be asked for: not `..`, nothing hidden, no separator in it."""
    return not name.startswith(".") and not any(char in name for char in "/\\\0")


def _resolve(root: str, names: list[str]) -> str:
    """Return the path behind all symlinks, which must not lead out of `root`."""
    path = os.path.realpath(os.path.join(root, *names), strict=True)
    if os.path.commonpath([root, path]) != root:
        raise FileNotFoundError(path)
    return path


def _entries(root: str, names: list[str]) -> list[Entry]:
    """Return what a listing shows: the names that would be served."""
    with os.scandir(_resolve(root, names)) as items:
        entries = [_entry(root, names, item) for item in items if _is_served(item.name)]
    return [entry for entry in entries if entry is not None]


def _entry(root: str, names: list[str], item: os.DirEntry[str]) -> Entry | None:
    try:
        # A name that is not UTF-8 cannot be asked for.
        item.name.encode()
        if item.is_symlink():
            _resolve(root, [*names, item.name])
        status = item.stat()
    except (OSError, UnicodeError):
        return None
    is_folder = stat.S_ISDIR(status.st_mode)
    if not (is_folder or stat.S_ISREG(status.st_mode)):
        return None
    return Entry(item.name, is_folder, status.st_size, status.st_mtime)


def _open_file(path: str, request: Request) -> Response:
    # Asked before opening: the mere opening of a device can do something.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise FileNotFoundError(path)
    file = FileIO(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
    try:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError(path)
        return _file_response(file, path, status, request)
    except BaseException:  # no response was made that would close it
        file.close()
        raise


def _file_response(file: FileIO, path: str, status: os.stat_result, request: Request) -> Response:
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": f'"{status.st_mtime_ns:x}-{status.st_size:x}"',
        "Last-Modified": formatdate(int(status.st_mtime), usegmt=True),
    }
    response = Response(HTTPStatus.OK, headers, file=file)
    if _is_unchanged(request, headers["ETag"], int(status.st_mtime)):
        response.status = HTTPStatus.NOT_MODIFIED
        return response
    headers["Content-Type"] = _content_type(path)
    response.count = status.st_size
    asked = _asked_range(request, headers, status.st_size)
    if asked is None:
        return response
    if not asked:
        file.close()
        unsatisfied = f"bytes */{status.st_size}"
        return text_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, Content_Range=unsatisfied)
    response.status = HTTPStatus.PARTIAL_CONTENT
    response.offset, response.count = asked.start, len(asked)
    headers["Content-Range"] = f"bytes {asked.start}-{asked.stop - 1}/{status.st_size}"
    return response


def _content_type(path: str) -> str:
    kind, encoding = TYPES.guess_type(path, strict=False)
    if encoding is not None:
        # "x.tar.gz" is sent as the archive it is, not as a tar that a browser would unpack.
        return "application/gzip" if encoding == "gzip" else "application/octet-stream"
    if kind is None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def _is_unchanged(request: Request, etag: str, mtime: int) -> bool:
    """Tell whether the client's copy is current (RFC 9110, sections 13.1.2 and 13.1.3)."""
    tags = request.headers.get("if-none-match")
    if tags is not None:
        known = [tag.strip().removeprefix("W/") for tag in tags.split(",")]
        return etag in known or known == ["*"]
    try:
        since = parsedate_to_datetime(request.headers.get("if-modified-since", ""))
        return mtime <= since.timestamp()
    except (ValueError, OverflowError):
        return False


def _asked_range(request: Request, headers: dict[str, str], size: int) -> range | None:
    """Return the bytes that a single range asks for, none if there are none such in the file.

    None: the whole file, also for several ranges, other units and wrong syntax, all of which
    may be ignored (RFC 9110, section 14.2), and where If-Range names another version: a resumed
    download would put two versions together.
    """
    match = re.fullmatch(
        r"(?i:bytes)=([0-9]{0,99})-([0-9]{0,99})", request.headers.get("range", "")
    )
    if match is None or request.method != "GET" or match[0].endswith("=-"):
        return None
    if request.headers.get("if-range", headers["ETag"]) not in (
        headers["ETag"],
        headers["Last-Modified"],
    ):
        return None
    first, last = match[1], match[2]
    if not first:
        return range(max(size - int(last), 0), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)
