"""`socket.sendall` and `socket.sendfile` for async Python."""

from ._errors import BusyResourceError, SendfileNotAvailableError
from ._limits import Limits
from ._sockets import sock_sendall, sock_sendfile, sock_sendmsg
from .streams import sendall, sendfile, sendfile_path

__all__ = [
    "BusyResourceError",
    "Limits",
    "SendfileNotAvailableError",
    "sendall",
    "sendfile",
    "sendfile_path",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendmsg",
]

__version__ = "0.1.0"
