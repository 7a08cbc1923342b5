"""The files of a folder as routes of aiohttp: which file a path leads to."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final, TypedDict, cast

from aiohttp import web

# By a name of its own: `web.FileResponse` may be ours, where an application puts it there.
from aiohttp.web_fileresponse import FileResponse as StockFileResponse

from .._limits import DEFAULT_LIMITS
from ._file_responses import ENCODINGS, FileResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from typing import Unpack

    from aiohttp.typedefs import PathLike

    from .._limits import Limits
    from ..http import FileCache

# So many names are remembered, of so many characters at most: 3 MiB with their paths, 9 where each
# has a character of four bytes. Clients choose them, and there is no end to the names of one file
# (`a//b`, `a///b`). Longer ones are looked up each time.
_MOST_NAMES: Final = 4096
_LONGEST_NAME: Final = 256
# How long a link may still be followed after it was changed.
_NAME_SECONDS: Final = 1.0


class StaticOptions(TypedDict, total=False):
    """What `static` and `add_static` take besides prefix and folder.

    Attributes:
        name: Of the route. This and all to `append_version` are aiohttp's.
        expect_handler: What answers `Expect`.
        chunk_size: Not used, as for `FileResponse`.
        show_index: Whether a folder is answered by a list of its files, and not by 403.
        follow_symlinks: Whether links may lead out of the folder.
        append_version: Whether `url_for` appends what changes with the file.
        timeout: The most seconds for one file. This and the rest are those of `FileResponse`.
        limits: The pace that a client has to keep.
        encodings: Those in which files may lie beside the asked one.
        cache: Of open files.
    """

    name: str | None
    expect_handler: Callable[[web.Request], Awaitable[web.StreamResponse | None]] | None
    chunk_size: int
    show_index: bool
    follow_symlinks: bool
    append_version: bool
    timeout: float | None
    limits: Limits | None
    encodings: Collection[str]
    cache: FileCache | None


class StaticResource(web.StaticResource):
    """aiohttp's resource of a folder, whose files are sent as `FileResponse` sends them."""

    def __init__(self, prefix: str, directory: PathLike, **options: Unpack[StaticOptions]) -> None:
        self._respond = partial(
            FileResponse,
            timeout=options.pop("timeout", None),
            limits=options.pop("limits", DEFAULT_LIMITS),
            encodings=options.pop("encodings", ENCODINGS),
            cache=options.pop("cache", None),
        )
        # What is wrong with these is so for every file: it shows here, and not to clients.
        self._respond("")
        super().__init__(prefix, directory, **options)  # type: ignore[misc]  # those left are its
        # The file that a part of a path leads to, and until when it is taken to.
        self._resolved: dict[str, tuple[str, float]] = {}

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["filename"]
        path, until = self._resolved.get(name, (None, 0.0))
        if path is None or monotonic() > until:
            try:
                response = await super()._handle(request)
            except OSError:
                # A name that no file can have, as it is too long.
                raise web.HTTPNotFound from None
            if not isinstance(response, StockFileResponse):
                return response
            path = str(response._path)
            if len(name) <= _LONGEST_NAME:
                if len(self._resolved) >= _MOST_NAMES:
                    self._resolved.clear()
                self._resolved[name] = path, monotonic() + _NAME_SECONDS
        return self._respond(path)


def add_static(
    router: web.UrlDispatcher, prefix: str, directory: PathLike, **options: Unpack[StaticOptions]
) -> StaticResource:
    """Serve the files of a folder, in place of `router.add_static`.

    Args:
        router: Of the application: `app.router`.
        prefix: The path that the folder is at, such as "/files".
        directory: The folder. Nothing outside of it is served, unless `follow_symlinks` is true.
        options: See `StaticOptions`.

    Raises:
        TypeError: `limits` is no `Limits`.
        ValueError: There is no such folder, or the prefix does not start with "/"; `timeout` is
            negative, or one of the encodings is another one.
    """
    if not prefix.startswith("/"):
        raise ValueError(f"a prefix starts with '/' (got {prefix!r})")
    resource = StaticResource(prefix.removesuffix("/"), directory, **options)
    router.register_resource(resource)
    return resource


class _StaticDef(web.StaticDef):
    def register(self, router: web.UrlDispatcher) -> list[web.AbstractRoute]:
        resource = add_static(router, self.prefix, self.path, **self.kwargs)
        return list(resource)


def static(prefix: str, path: PathLike, **options: Unpack[StaticOptions]) -> web.StaticDef:
    """Define a route for the files of a folder, in place of `aiohttp.web.static`.

    For `app.add_routes([static("/files", folder)])`; arguments and errors are those of
    `add_static`.
    """
    return _StaticDef(prefix, path, cast("dict[str, object]", options))
