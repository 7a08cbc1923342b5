"""One request and its response: which one it is, and how it is sent.

How slow a client may be while it is sent something is asend's to watch.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING

import asend
from activity import Transfer
from asend.http import send_parts
from responses import Response, text_response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from parser import Request
    from service import Service

# Folders that are listed at a time: a large one takes some MB.
MAX_LISTINGS = 32

logger = logging.getLogger("file_server")


class Exchange:
    """One request, and its response on the way to the client."""

    __slots__ = ("_client", "_lists", "_request", "_service", "_target", "_transport")

    def __init__(
        self, service: Service, transport: asyncio.Transport, client: str, request: Request
    ) -> None:
        self._service = service
        self._transport = transport
        self._client = client
        self._request = request
        self._target = request.target.decode("ascii", "replace")
        # Whether it is one of the listings that are counted.
        self._lists = False

    async def run(self) -> bool:
        """Answer the request; tell whether another one may follow on the connection.

        Raises:
            TimeoutError: The client is too slow. As in all cases: abort the connection.
            TruncatedError: The file has become shorter than was promised.
            Exception: The client has gone, or something went wrong here.
        """
        try:
            return await self._send(await self._find())
        finally:
            self._service.listings -= self._lists

    async def _find(self) -> Response:
        folder, request = self._service.folder, self._request
        response = folder.respond_now(request)
        if response is not None:
            return response
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._service.options.stall):
                response = await loop.run_in_executor(None, folder.respond, request)
                if response.blocks is None or request.method == "HEAD":
                    return response
                return await self._begin_listing(response, response.blocks)
        except TimeoutError:
            self._service.activity.dropped["slow disk"] += 1
        except OSError as error:
            logger.warning("%s: %s", self._target, error)
        return text_response(HTTPStatus.SERVICE_UNAVAILABLE)

    async def _begin_listing(self, response: Response, blocks: Iterator[bytes]) -> Response:
        """Make the first block, while there can still be another answer."""
        if self._service.listings >= MAX_LISTINGS:
            return text_response(HTTPStatus.SERVICE_UNAVAILABLE)
        self._service.listings += 1
        self._lists = True
        response.blocks = chain([await self._next(blocks)], blocks)
        return response

    async def _next(self, blocks: Iterator[bytes]) -> bytes:
        """Return the next block, b"" after the last."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._service.listers, next, blocks, b"")

    async def _send(self, response: Response) -> bool:
        request = self._request
        keep_alive = request.keep_alive and not self._service.is_stopping
        is_chunked = response.blocks is not None and request.version != "1.0"
        if is_chunked:
            response.fields = {**response.fields, "Transfer-Encoding": "chunked"}
        elif response.blocks is not None:
            # Its end is that of the connection.
            keep_alive = False
        head = response.head(keep_alive=keep_alive, version=request.version)
        transfer = Transfer(self._client, self._target, response.nbytes or 0)
        try:
            if request.method == "HEAD":
                self._transport.write(head)
            elif response.blocks is not None:
                await self._send_blocks(head, response.blocks, transfer, is_chunked=is_chunked)
            elif response.file is not None:
                with self._service.activity.under_way(transfer):
                    await send_parts(
                        self._transport,
                        head,
                        response.file,
                        response.parts,
                        limits=self._service.limits,
                        progress=transfer.add,
                    )
            else:
                self._transport.write(head + response.body)
                transfer.add(len(response.body))
        finally:
            self._service.activity.answered(self._client, request, response.status, transfer.sent)
        return keep_alive

    async def _send_blocks(
        self, head: bytes, blocks: Iterator[bytes], transfer: Transfer, *, is_chunked: bool
    ) -> None:
        pending, limits = head, self._service.limits
        while block := await self._next(blocks):
            pending += b"%x\r\n%b\r\n" % (len(block), block) if is_chunked else block
            await asend.sendall(self._transport, pending, limits=limits)
            transfer.add(len(block))
            pending = b""
        pending += b"0\r\n\r\n" if is_chunked else b""
        await asend.sendall(self._transport, pending, limits=limits)
