"""Print the whole message of `hello_server.py`."""

import argparse
import asyncio
import socket
import sys


async def receive_all(host: str, port: int) -> bytes:
    """Return what the server sends until it closes the connection.

    One `recv` would return what has arrived so far, which may be a part of the message.
    """
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (host, port))
        parts = []
        while part := await loop.sock_recv(sock, 64 * 1024):
            parts.append(part)
        return b"".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument("--port", type=int, default=65432, help="default: %(default)s")
    arguments = parser.parse_args()
    try:
        message = asyncio.run(receive_all(arguments.host, arguments.port))
    except OSError as error:
        sys.exit(f"hello_client: {error}")
    print(f"received {len(message)} bytes: {message.decode()}", end="")


if __name__ == "__main__":
    main()
