"""Addresses of machines: finds this machine's own address, splits HOST:PORT, knocks at ports and greets."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import psutil

from cluster.errors import ClusterUnavailable

#: An address that no machine has (RFC 5737). The way to it leaves by the interface that other machines see.
_NOWHERE = "203.0.113.1:9"
_KNOCK_TIMEOUT_S = 2.0
#: How a client of gRPC begins: HTTP/2's preface and empty settings (RFC 9113, 3.4). A server answers at once.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def own_address(head_address: str) -> str:
    """This machine's address on the way to the head.

    Raises:
        ClusterUnavailable: the head's name has no address, or there is no way to it.
    """
    host, port = split_address(head_address)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # A datagram socket sends nothing here; the system only chooses the way.
            probe.connect((host, port))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ClusterUnavailable(
            f"There is no way to the head at {head_address}: {error.strerror or error}. Check the name and "
            "the network; a name of your own must stand in the hosts file (docs/two-machines.md)."
        ) from error


def outer_address() -> str:
    """The address by which other machines most likely reach this one.

    Raises:
        ClusterUnavailable: this machine has only loopback addresses.
    """
    with contextlib.suppress(ClusterUnavailable):
        return own_address(_NOWHERE)
    # There is no way out, for example in a network without a router.
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not is_loopback(each.address):
                return str(each.address)
    raise ClusterUnavailable(
        "This machine has no address by which others could reach it. Name one with --address "
        "(127.0.0.1 serves programs on this machine alone)."
    )


def split_address(address: str) -> tuple[str, int]:
    """Split "HOST:PORT" into its parts; without a port, take Ray's own 6379.

    Raises:
        ClusterUnavailable: it is not an address.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        return address, 6379
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ClusterUnavailable(
            f"{address!r} is no address of a head. Give it as HOST:PORT, for example 192.168.1.10:6379."
        )
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether the host names this machine by an address that no other machine can use."""
    return host == "localhost" or host.startswith("127.")


def knock(host: str, port: int, timeout_s: float = _KNOCK_TIMEOUT_S) -> str:
    """Connect to the port and hang up; returns what went wrong, in words, or ""."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return ""
    except OSError as error:
        return _why(error)


def greet(host: str, port: int, timeout_s: float = _KNOCK_TIMEOUT_S) -> str:
    """Connect to a server of gRPC and wait until it reacts; returns what went wrong, in words, or "".

    The system accepts connections for a process that hangs; so a knock says nothing about the process.
    """
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as there:
            try:
                # Whatever comes is a reaction: settings, an alert where TLS is on, or the connection's end.
                with contextlib.suppress(ConnectionError):
                    there.sendall(_GREETING)
                    there.recv(1)
            except TimeoutError:
                return "it takes connections and does not react: its process hangs, or the way back is lost"
            return ""
    except OSError as error:
        return _why(error)


def knock_all(host: str, ports: Sequence[int]) -> dict[int, str]:
    """Knock at many ports at once; returns what `knock` says of each port."""
    with ThreadPoolExecutor(32) as pool:
        return dict(zip(ports, pool.map(knock, [host] * len(ports), ports), strict=True))


def list_ports(problems: Mapping[str, str] | Mapping[int, str]) -> str:
    """Ports and the problem of each, in words: those with one problem together, rows as "7380-7384"."""
    by_problem: dict[str, list[int]] = {}
    for port, problem in problems.items():
        by_problem.setdefault(problem, []).append(int(port))
    return "; ".join(f"{_rows(sorted(ports))}: {problem}" for problem, ports in by_problem.items())


def _why(error: OSError) -> str:
    """Why a connection was not made, in words."""
    if isinstance(error, TimeoutError):
        return "no answer (a firewall drops it, or the address is wrong)"
    return error.strerror or str(error)


def _rows(ports: Iterable[int]) -> str:
    rows: list[list[int]] = []
    for port in ports:
        if rows and port == rows[-1][-1] + 1:
            rows[-1].append(port)
        else:
            rows.append([port])
    return ", ".join(f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]) for row in rows)
