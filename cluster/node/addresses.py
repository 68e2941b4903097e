"""Addresses of machines: this one's own, by which others reach it, and whether a port answers."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import psutil

from cluster.errors import ClusterUnavailable

#: An address that nobody has (RFC 5737): the way to it leaves by the interface that the others see.
_ANYWHERE = "203.0.113.1:9"
_KNOCK_TIMEOUT_S = 2.0


def own_address(head_address: str) -> str:
    """This machine's address on the way to the head.

    Raises:
        ClusterUnavailable: the head's name has no address, or there is no way to it.
    """
    host, port = split_address(head_address)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Of a datagram socket this sends nothing; it only chooses the way.
            probe.connect((host, port))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ClusterUnavailable(
            f"There is no way to the head at {head_address}: {error.strerror or error}. Check the name and "
            "the network; a name of your own belongs into the hosts file (README, Two machines)."
        ) from error


def outer_address() -> str:
    """The address that other machines most likely reach this one by.

    Raises:
        ClusterUnavailable: this machine has none but loopback.
    """
    with contextlib.suppress(ClusterUnavailable):
        return own_address(_ANYWHERE)
    # No way out, as in a network of its own.
    for addresses in psutil.net_if_addrs().values():
        for each in addresses:
            if each.family == socket.AF_INET and not is_loopback(each.address):
                return str(each.address)
    raise ClusterUnavailable(
        "This machine has no address that others could reach it by. Name one with --address "
        "(127.0.0.1 is for drivers of this machine alone)."
    )


def split_address(address: str) -> tuple[str, int]:
    """ "HOST:PORT" → its parts; without a port, Ray's own 6379.

    Raises:
        ClusterUnavailable: it is no address.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        return address, 6379
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ClusterUnavailable(f"{address!r} is no address of a head; expected HOST:PORT.")
    return host, int(port)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, by an address that no other can use."""
    return host == "localhost" or host.startswith("127.")


def knock(host: str, port: int, timeout_s: float = _KNOCK_TIMEOUT_S) -> str:
    """Connect and hang up; returns what went wrong, in words, or nothing."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return ""
    except TimeoutError:
        return "no answer (a firewall drops it, or the address is wrong)"
    except OSError as error:
        return error.strerror or str(error)


def knock_all(host: str, ports: Sequence[int]) -> dict[int, str]:
    """Knock at many ports at once."""
    with ThreadPoolExecutor(32) as pool:
        return dict(zip(ports, pool.map(knock, [host] * len(ports), ports), strict=True))


def list_ports(problems: Mapping[str, str] | Mapping[int, str]) -> str:
    """Ports and the problem of each, in words: those with one problem together, rows as "7380-7384"."""
    by_problem: dict[str, list[int]] = {}
    for port, problem in problems.items():
        by_problem.setdefault(problem, []).append(int(port))
    return "; ".join(f"{_rows(sorted(ports))}: {problem}" for problem, ports in by_problem.items())


def _rows(ports: Iterable[int]) -> str:
    rows: list[list[int]] = []
    for port in ports:
        if rows and port == rows[-1][-1] + 1:
            rows[-1].append(port)
        else:
            rows.append([port])
    return ", ".join(f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]) for row in rows)
