"""A proxy before an HTTP server that fails as networks and busy servers do.

Run as a program: `python -m tests.faulty_proxy PORT SERVER_PORT SEED`.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from tests.ports import free_port, wait_for

BUSY = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
UNAVAILABLE, CUT_ANSWER, CUT_REQUEST, DELAYED = 0.1, 0.04, 0.01, 0.1
"""Shares of the calls. A cut answer: the server did its work. A cut request: it did not."""
DELAY_SECONDS = 0.3


async def read_message(reader: asyncio.StreamReader, *, of_head: bool = False) -> bytes:
    """One HTTP message with its body; empty at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    lines = head.lower().split(b"\r\n")
    if b"transfer-encoding: chunked" in lines:
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            size = await reader.readuntil(b"\r\n")
            body += size + await reader.readexactly(int(size.split(b";")[0], 16) + 2)
        return head + body
    lengths = [line for line in lines if line.startswith(b"content-length:")]
    if not lengths or of_head:
        return head
    return head + await reader.readexactly(int(lengths[0].partition(b":")[2]))


class FaultyProxy:
    """Forwards each call on a connection of its own."""

    def __init__(self, server_port: int, seed: int) -> None:
        self._server_port, self._random = server_port, Random(seed)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while request := await read_message(reader):
                if not await self._answer(request, writer):
                    break
        writer.close()

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer one call; False if the connection ends with it."""
        dice = self._random.random()
        if dice < UNAVAILABLE:
            writer.write(BUSY)
            await writer.drain()
            return False
        dice -= UNAVAILABLE
        if dice < CUT_REQUEST:
            return False
        if self._random.random() < DELAYED:
            await asyncio.sleep(DELAY_SECONDS)
        answer = await self._forward(request)
        is_cut = dice < CUT_REQUEST + CUT_ANSWER
        writer.write(answer[: len(answer) // 2] if is_cut else answer)
        await writer.drain()
        return not is_cut

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server_port, limit=2**20)
        try:
            writer.write(request)
            await writer.drain()
            return await read_message(reader, of_head=request.startswith(b"HEAD "))
        finally:
            writer.close()


async def main(port: int, server_port: int, seed: int) -> None:
    proxy = FaultyProxy(server_port, seed)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", port, limit=2**20)
    async with server:
        await server.serve_forever()


@contextmanager
def running_proxy(server_port: int, seed: int = 0) -> Iterator[str]:
    """The endpoint of a faulty proxy that is a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "tests.faulty_proxy", str(port), str(server_port), str(seed)]
    root = Path(__file__).parent.parent
    proxy = subprocess.Popen(command, cwd=root)
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        proxy.kill()
        proxy.wait()


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
