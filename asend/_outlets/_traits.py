"""Which transports there are, and what their classes say of them."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol, overload

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Literal, TypeGuard

    from _typeshed import HasFileno

# Whose transports send what is written and nothing else, unless they encrypt.
_KNOWN = {"asyncio", "uvloop", "aiofastnet"}
# Classes whose objects always have a stream socket; others are asked, which takes 3 us.
_OF_SOCKETS = {
    ("asyncio.selector_events", "_SelectorSocketTransport"),
    ("uvloop.loop", "TCPTransport"),
    ("uvloop.loop", "UnixTransport"),
}


class Transport(Protocol):
    """What asyncio's write transports have, whatever they are of."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Send now what goes, and keep the rest in the buffer."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are in the buffer."""

    def is_closing(self) -> bool:
        """Tell whether it is closing or closed."""

    def close(self) -> None:
        """Close, once the buffer is out."""

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return who hears of what is read, and of the end of the connection."""

    def set_protocol(self, protocol: asyncio.BaseProtocol, /) -> None:
        """Set who hears of it."""

    @overload
    def get_extra_info(self, name: Literal["pipe", "socket"], /) -> HasFileno | None: ...
    @overload
    def get_extra_info(self, name: str, /) -> object: ...


def is_transport(stream: object) -> TypeGuard[Transport]:
    """Tell whether bytes can be written to this as to a transport of asyncio."""
    # Some only forward what they are asked for, so that their class does not have it.
    return traits_of(type(stream)).is_transport or _has_methods(stream)


def _has_methods(stream: object) -> bool:
    names = ("write", "is_closing", "get_write_buffer_size", "get_extra_info", "set_protocol")
    return all(hasattr(stream, name) for name in names)


class _Traits(NamedTuple):
    """What the class of a stream says of all its objects."""

    is_transport: bool
    is_known: bool
    is_of_sockets: bool
    is_of_uvloop: bool


def _read_traits(kind: type) -> _Traits:
    package = kind.__module__.partition(".")[0]
    return _Traits(
        _has_methods(kind),
        package in _KNOWN,
        (kind.__module__, kind.__name__) in _OF_SOCKETS,
        package == "uvloop",
    )


traits_of: Callable[[type], _Traits] = lru_cache(maxsize=256)(_read_traits)
