"""Which names a request asks for, and whether what they lead to may be served."""

from __future__ import annotations

import os
from urllib.parse import quote, unquote_to_bytes

import httptools


def names_of(target: bytes, *, hidden: bool) -> list[str]:
    """Return the names that the path of a target is made of, percent-decoded once.

    Dot segments are resolved. A last name that is empty says that the path ends with a slash.

    Args:
        target: As in the request line: a path with or without a query, or a whole URL.
        hidden: Whether names that begin with a dot are served.

    Raises:
        FileNotFoundError: There can be no such path, or it may not be asked for.
    """
    try:
        path = httptools.parse_url(target).path or b"/"
    except httptools.HttpParserInvalidURLError:
        raise FileNotFoundError(target) from None
    if not path.startswith(b"/"):
        raise FileNotFoundError(target)
    names: list[str] = []
    *above, last = (unquote_to_bytes(part) for part in path[1:].split(b"/"))
    for part in [*above, last]:
        if part == b"..":
            if not names:
                raise FileNotFoundError(target)
            names.pop()
        elif part not in (b"", b"."):
            names.append(_checked(part, hidden=hidden))
    return [*names, ""] if last in (b"", b".", b"..") else names


def _checked(part: bytes, *, hidden: bool) -> str:
    # An encoded slash is part of a name, and no file has such a name.
    if b"/" in part or b"\0" in part or (part.startswith(b".") and not hidden):
        raise FileNotFoundError(part)
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise FileNotFoundError(part) from None


def url_of(names: list[str]) -> str:
    """Return the path of a URL; made of names, it cannot begin with `//` and lead to a host."""
    return "/" + "/".join(map(quote, names))


class Confinement:
    """What lies below a folder, and may be served.

    It is asked of what was opened already: a name could lead elsewhere in the next moment.

    Args:
        root: Absolute and without symlinks.
        hidden: Whether names that begin with a dot are served.
        follow_symlinks: Whether these may lead out of the folder.
    """

    def __init__(self, root: str, *, hidden: bool, follow_symlinks: bool) -> None:
        self._root = root
        self._inside = root if root.endswith("/") else root + "/"
        self._hidden = hidden
        self._follow_symlinks = follow_symlinks

    def check(self, fd: int, path: str) -> None:
        """Refuse what is open if it is not to be served.

        Raises:
            FileNotFoundError: It is elsewhere, or hidden. For the client it is not there.
        """
        if not self._follow_symlinks:
            self.check_path(_real_path(fd, path))

    def check_path(self, real: str) -> None:
        """Do the same for a path without symlinks."""
        if self._follow_symlinks or real == self._root:
            return
        inner = real.removeprefix(self._inside)
        if inner == real or (not self._hidden and (inner[0] == "." or "/." in inner)):
            raise FileNotFoundError(real)


def _real_path(fd: int, path: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        # Not on Linux, or without /proc: there is no common way to ask a descriptor for its path.
        return os.path.realpath(path)
