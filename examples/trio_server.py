"""Send every client a message, and a file if one is given, under trio: `trio_server.py [FILE]`."""

import argparse
import contextlib
import sys

import trio

import asend

MESSAGE = b"Hello from trio!\n"


async def greet(client: trio.socket.SocketType, path: str | None) -> None:
    """Send the message, then the file, and close."""
    with client, contextlib.suppress(OSError):  # The client, or the file, has gone.
        await asend.sock_sendall(client, MESSAGE, timeout=30)
        if path is not None:
            async with await trio.open_file(path, "rb") as file:
                await asend.sock_sendfile(client, file.wrapped, limits=asend.Limits(stall=30))


async def serve(host: str, port: int, path: str | None) -> None:
    """Greet everybody who connects, many at a time."""
    with trio.socket.socket() as listener:
        listener.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_REUSEADDR, 1)
        await listener.bind((host, port))
        listener.listen()
        print("listening on {}:{}".format(*listener.getsockname()), flush=True)
        async with trio.open_nursery() as clients:
            while True:
                try:
                    client, _ = await listener.accept()
                except OSError as error:
                    print(f"cannot accept: {error}", flush=True)
                    await trio.sleep(1)  # Too many are open, and some will end.
                    continue
                clients.start_soon(greet, client, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", metavar="FILE", nargs="?", help="sent after the message")
    parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
    parser.add_argument(
        "--port", type=int, default=65432, help="default: %(default)s; 0: a free one"
    )
    arguments = parser.parse_args()
    try:
        if arguments.file is not None:
            open(arguments.file, "rb").close()  # Asked here, where it has a plain answer.
        try:
            trio.run(serve, arguments.host, arguments.port, arguments.file)
        except* KeyboardInterrupt:
            pass  # Ctrl+C comes out of the nursery as a group.
    except OSError as error:
        sys.exit(f"trio_server: {error}")


if __name__ == "__main__":
    main()
