"""Forwards ports as `docker -p` of Docker Desktop does: listens in one namespace, connects from another.

python -m tests.hosts.port_forward FROM_NAMESPACE FROM_ADDRESS TO_NAMESPACE TO_ADDRESS PORT[-PORT]…
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys
from collections.abc import Sequence

_CLONE_NEWNET = 0x40000000


def _socket_in(namespace: str) -> socket.socket:
    """A TCP socket that belongs to the namespace; the process itself stays where it was."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if libc.setns(there, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        made = socket.socket()
        made.setblocking(False)
        return made
    finally:
        libc.setns(home, _CLONE_NEWNET)
        os.close(home)
        os.close(there)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def _forward(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, namespace: str, address: str, port: int
) -> None:
    target = _socket_in(namespace)
    try:
        await asyncio.wait_for(asyncio.get_running_loop().sock_connect(target, (address, port)), 5)
        there_reader, there_writer = await asyncio.open_connection(sock=target)
    except (OSError, TimeoutError):
        target.close()
        writer.transport.abort()
        return
    await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))


async def _serve(arguments: Sequence[str]) -> None:
    here, address, there, there_address, *ranges = arguments
    for each in ranges:
        first, _, last = each.partition("-")
        for port in range(int(first), int(last or first) + 1):
            listener = _socket_in(here)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port
            ) -> None:
                await _forward(reader, writer, there, there_address, port)

            await asyncio.start_server(serve, sock=listener)
    sys.stdout.write("forwarding\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1:]))
