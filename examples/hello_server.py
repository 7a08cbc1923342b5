"""Send every client one complete message: `python hello_server.py`, then `hello_client.py`."""

import argparse
import asyncio
import contextlib
import socket
import sys

import asend

MESSAGE = b"Hello! Every byte of this message arrives, or the server gets an error.\n"


async def greet(client: socket.socket) -> None:
    """Send the message and close, which tells the client that it is complete."""
    with client, contextlib.suppress(OSError):  # The client has gone, or reads nothing.
        await asend.sock_sendall(client, MESSAGE, timeout=30)


async def serve(host: str, port: int) -> None:
    """Greet everybody who connects, many at a time."""
    loop = asyncio.get_running_loop()
    with socket.create_server((host, port)) as listener:
        listener.setblocking(False)
        print("listening on {}:{}".format(*listener.getsockname()), flush=True)
        async with asyncio.TaskGroup() as clients:
            while True:
                try:
                    client, address = await loop.sock_accept(listener)
                except OSError as error:
                    print(f"cannot accept: {error}", flush=True)
                    await asyncio.sleep(1)  # Too many are open, and some will end.
                    continue
                print("greeting {}:{}".format(*address), flush=True)
                clients.create_task(greet(client))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument(
        "--port", type=int, default=65432, help="default: %(default)s; 0: a free one"
    )
    arguments = parser.parse_args()
    try:
        asyncio.run(serve(arguments.host, arguments.port))
    except OSError as error:
        sys.exit(f"hello_server: {error}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
