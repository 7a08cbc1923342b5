"""From a request to its response."""

from __future__ import annotations

import errno
import os
import stat
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING

from asend.http import IrregularFileError, answer, preferred
from files import CODINGS, Files
from listing import HTML_FIELDS, JSON_FIELDS, Entry, html_blocks, json_blocks, prefers_json
from paths import Confinement, names_of, url_of
from responses import Response, text_response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from files import Known, Resource, Variant
    from options import Options
    from parser import Request

# Errors of the server's, not of the path's.
OVERLOADED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Answers that are known to be of use again, by target and Accept-Encoding.
MAX_KNOWN = 4096
# In bytes; browsers send some 30 for the codings.
MAX_KEY = 1024
# What a 304 says of the file: RFC 9110, section 15.4.5.
KEPT_FIELDS = ("Cache-Control", "ETag", "Last-Modified", "Vary")


class Folder:
    """What is below a folder, as responses.

    Args:
        options: Which folder, and what of it.
        now: The clock by which what is known grows old.
    """

    def __init__(self, options: Options, now: Callable[[], float] = monotonic) -> None:
        self._root = options.root
        self._hidden = options.hidden
        self._listing = options.listing
        self._confinement = Confinement(
            options.root, hidden=options.hidden, follow_symlinks=options.follow_symlinks
        )
        self._known: Known = {}
        self._files = Files(options, self._confinement, now, self._known)
        self._now = now

    def ready(self, request: Request, date: bytes) -> tuple[bytes, int] | None:
        """Return the whole answer to a plain request, and how long its body is.

        None: It is not at hand.
        """
        known = self._recall(request)
        if known is None or (whole := known[1].ready(date)) is None:
            return None
        return whole, known[1].file.size

    def _recall(self, request: Request) -> tuple[Resource, Variant] | None:
        known = self._known.get((request.target, request.fields.get(b"accept-encoding")))
        return None if known is None or self._now() >= known[0].until else known

    def respond_now(self, request: Request) -> Response | None:
        """Answer a request for a file that is known already; None where that may block."""
        if request.error is not None or request.method not in ("GET", "HEAD"):
            return self.respond(request)
        known = self._recall(request)
        if known is None:
            return None
        resource, variant = known
        return self._answer(request, resource, variant) if variant.file.is_current() else None

    def respond(self, request: Request) -> Response:
        """Answer a request. Blocking.

        What must not be reached is 404, whatever the reason: nobody learns what there is.
        """
        if request.error is not None:
            return text_response(request.error)
        if request.method not in ("GET", "HEAD"):
            return text_response(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            return self._find(request)
        except PermissionError as error:
            return text_response(self._forbidden(error.filename))
        except OSError as error:
            if error.errno in OVERLOADED:
                return text_response(HTTPStatus.SERVICE_UNAVAILABLE)
            return text_response(HTTPStatus.NOT_FOUND)

    def _forbidden(self, path: object) -> HTTPStatus:
        if not isinstance(path, str):
            # Of what was open: that it may be served was seen before.
            return HTTPStatus.FORBIDDEN
        try:
            self._confinement.check_path(os.path.realpath(path))
        except OSError:
            return HTTPStatus.NOT_FOUND
        return HTTPStatus.FORBIDDEN

    def _path(self, names: list[str]) -> str:
        return os.path.join(self._root, *names)

    def _find(self, request: Request) -> Response:
        names = names_of(request.target, hidden=self._hidden)
        if names[-1]:
            path = self._path(names)
            if stat.S_ISDIR(os.stat(path).st_mode):
                # Only if it may be served at all.
                os.close(self._open_folder(names))
                return self._redirect(request, [*names, ""])
            return self._file(request, names)
        folder = names[:-1]
        try:
            return self._file(request, [*folder, "index.html"])
        except (FileNotFoundError, IrregularFileError):
            return self._list(request, folder)

    def _redirect(self, request: Request, names: list[str]) -> Response:
        _, mark, query = request.target.decode("ascii", "replace").partition("?")
        location = url_of(names) + mark + query
        return text_response(HTTPStatus.MOVED_PERMANENTLY, {"Location": location})

    def _file(self, request: Request, names: list[str]) -> Response:
        path = self._path(names)
        resource = self._files.find(path)
        if resource is None or not self._choose(resource, request).file.is_current():
            resource = self._files.look_up(path)
        variant = self._choose(resource, request)
        response = self._answer(request, resource, variant)
        if request.is_plain and request.keep_alive:
            variant.keep(response.head(keep_alive=True))
        key = request.target, request.fields.get(b"accept-encoding")
        # There are as many queries as anybody likes to make up, and they can be long.
        if b"?" not in request.target and len(key[0]) + len(key[1] or b"") <= MAX_KEY:
            self._known[key] = resource, variant
            resource.keys.add(key)
        return response

    def forget_old(self) -> None:
        """Forget what nobody has asked for lately."""
        self._files.forget_old()
        # A thread may add another one meanwhile.
        for key, (resource, _) in [*self._known.items()]:
            if not self._files.has(resource):
                self._known.pop(key, None)
        for key, (resource, _) in [*self._known.items()][:-MAX_KNOWN]:
            self._known.pop(key, None)
            resource.keys.discard(key)

    def _choose(self, resource: Resource, request: Request) -> Variant:
        return resource.best(preferred(request.get("Accept-Encoding"), CODINGS))

    def _answer(self, request: Request, resource: Resource, variant: Variant) -> Response:
        file, fields = variant.file, variant.fields
        if request.is_plain:
            return Response(200, fields, file.size, file=file, parts=[(0, file.size)])
        found = answer(
            request.get,
            size=file.size,
            mtime=file.mtime,
            etag=variant.etag,
            content_type=resource.content_type,
        )
        if found.status in (412, 416):
            return text_response(HTTPStatus(found.status), found.fields)
        if found.status == 304:
            # It is about what the client has already.
            fields = {name: value for name, value in fields.items() if name in KEPT_FIELDS}
        elif len(found.parts) > 1 and "Content-Encoding" in fields:
            # There is no place to say around several parts how the whole was encoded.
            return Response(200, fields, file.size, file=file, parts=[(0, file.size)])
        return Response(
            found.status, fields | found.fields, found.nbytes, file=file, parts=found.parts
        )

    def _open_folder(self, names: list[str]) -> int:
        path = self._path(names)
        fd = os.open(path, FOLDER_FLAGS)
        try:
            self._confinement.check(fd, path)
        except BaseException:  # it must not stay open, whatever it was
            os.close(fd)
            raise
        return fd

    def _list(self, request: Request, names: list[str]) -> Response:
        if not self._listing:
            raise FileNotFoundError
        # Looked at while there can still be another answer.
        os.close(self._open_folder(names))
        path = "/".join(["", *names, ""])
        if prefers_json(request.get("Accept")):
            return Response(200, JSON_FIELDS, blocks=json_blocks(path, self._entries(names)))
        return Response(200, HTML_FIELDS, blocks=html_blocks(path, self._entries(names)))

    def _entries(self, names: list[str]) -> Iterator[Entry]:
        """Yield what is in a folder and may be asked for, folders first."""
        fd = self._open_folder(names)
        try:
            with os.scandir(fd) as items:
                found = [item for item in items if self._is_shown(item.name)]
            found.sort(key=_order)
            for item in found:
                entry = self._entry(item, names)
                if entry is not None:
                    yield entry
        finally:
            os.close(fd)

    def _is_shown(self, name: str) -> bool:
        try:
            # A name that is not UTF-8 cannot be asked for.
            name.encode()
        except UnicodeEncodeError:
            return False
        return self._hidden or not name.startswith(".")

    def _entry(self, item: os.DirEntry[str], names: list[str]) -> Entry | None:
        try:
            if item.is_symlink():
                self._confinement.check_path(os.path.realpath(self._path([*names, item.name])))
            status = item.stat()
        except OSError:
            return None
        is_folder = stat.S_ISDIR(status.st_mode)
        if not (is_folder or stat.S_ISREG(status.st_mode)):
            return None
        return Entry(item.name, is_folder, status.st_size, status.st_mtime)


def _order(item: os.DirEntry[str]) -> tuple[bool, str, str]:
    return not _is_folder(item), item.name.casefold(), item.name


def _is_folder(item: os.DirEntry[str]) -> bool:
    try:
        return item.is_dir()
    except OSError:
        # A symlink that leads to itself. It is not shown, but has to be sorted.
        return False
