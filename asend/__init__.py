"""`socket.sendall` and `socket.sendfile` for async Python."""

from ._errors import BusyResourceError, SendfileNotAvailableError
from ._limits import Limits
from ._sockets import sock_sendall, sock_sendfile, sock_sendmsg

__all__ = [
    "BusyResourceError",
    "Limits",
    "SendfileNotAvailableError",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendmsg",
]

__version__ = "0.1.0"
