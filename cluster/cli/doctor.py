"""`rayface doctor`: says what is wrong, and what to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from cluster.cli import cluster as cluster_commands
from cluster.cli.kept_cluster import is_address_chosen
from cluster.cli.printable import printable, say
from cluster.doctor.bundle import write_bundle
from cluster.doctor.doctor import Doctor
from cluster.errors import ConfigurationError
from cluster.node.addresses import knock_all
from cluster.node.findings import Finding, Verdict, worst
from cluster.node.ray_start import reached_ports
from cluster.settings import HeadSettings, NodeSettings, Settings, load_settings, own_config

_STYLES = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.WRONG: "red"}
#: The exit code for the worst verdict of all findings.
EXITS = {Verdict.OK: 0, Verdict.WARN: 1, Verdict.WRONG: 3}


@click.command()
@click.argument("head", required=False, metavar="[HEAD]")
@click.option(
    "--address",
    metavar="HEAD",
    help="The head's address, on the backend's machine; without it, the one of the settings.",
)
@click.option("--device", "devices", multiple=True, help="A device that this machine lends, with HEAD.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option(
    "--bundle",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a .zip for a bug report; the token is not in it.",
)
@click.option(
    "--listen",
    "listen_s",
    type=click.FloatRange(1, 3600),
    metavar="SECONDS",
    help="Listen at the ports, for --knock on another machine.",
)
@click.option("--knock", "host", metavar="HOST", help="Try the ports of HOST, where --listen runs.")
@click.option("--config", type=click.Path(path_type=Path), help="A settings file instead of the shipped one.")
def doctor(
    head: str | None,
    address: str | None,
    devices: tuple[str, ...],
    as_json: bool,
    bundle: Path | None,
    listen_s: float | None,
    host: str | None,
    config: Path | None,
) -> None:
    """Look at both sides of the wire, and say what is wrong and what to do.

    On the backend's machine, give no HEAD, or --address. On the machine with the GPU, give HEAD, as for
    `rayface join`.

    Where Ray itself cannot connect, try the ports without it: --listen on one machine and --knock on the
    other. On the machine with the GPU, give HEAD with either.

    Exit code: 0 all is well, 1 something is worth a look, 3 something is wrong.
    """
    if head and address:
        raise click.UsageError(
            "HEAD is for the machine with the GPU, --address for the backend's machine: give one of them."
        )
    chosen: dict[str, dict[str, Any]] = {"join": {"devices": devices}} if devices else {}
    if address:
        chosen["cluster"] = {"address": address}
    settings = load_settings(config or own_config("windows.toml" if head else "backend.toml"), **chosen)
    if not head and not is_address_chosen(address, config):
        settings = cluster_commands.of_this_machine(settings)
    if listen_s is not None:
        listen(needed_ports(settings.join if head else settings.head), listen_s)
        return
    if host is not None:
        # A machine that lends knocks at a head, and the head's machine at one that lends.
        _knock(host, settings.head if head else settings.join)
        return
    console = Console(highlight=False, soft_wrap=True)
    findings, reaches = asyncio.run(_look(settings, head, console, as_json=as_json))
    if as_json:
        click.echo(json.dumps([each.as_dict() for each in findings], indent=2))
    else:
        _conclude(findings, console)
    if bundle is not None:
        status = _status(settings, head) if reaches else None
        names = write_bundle(bundle, findings, status, settings)
        say(f"Wrote {bundle}: {', '.join(names)}. Look at it before you send it.")
    sys.exit(EXITS[worst(findings)])


async def _look(
    settings: Settings, head: str | None, console: Console, *, as_json: bool
) -> tuple[list[Finding], bool]:
    """Run the doctor and print each finding; returns all of them, and whether the cluster answers."""
    doctor = Doctor(settings, head, settings.join.devices if head else ())
    is_seen = console.is_terminal and not as_json
    with console.status("looking …") if is_seen else contextlib.nullcontext():
        async for each in doctor.findings():
            if not as_json:
                console.print(_line(each))
    return doctor.found, doctor.reaches


def _line(finding: Finding) -> Text:
    where = f" at {finding.where}" if finding.where else ""
    text = Text.assemble(
        (f"{finding.verdict:<6}", _STYLES[finding.verdict]),
        (printable(f"{finding.name}{where}: "), "bold"),
        printable(finding.evidence, keep_lines=True),
    )
    if finding.advice:
        text.append(f"\n       → {printable(finding.advice, keep_lines=True)} ({finding.link})")
    return text


def _conclude(findings: Sequence[Finding], console: Console) -> None:
    counts = {each: sum(one.verdict is each for one in findings) for each in Verdict}
    summary = (
        f"{counts[Verdict.WRONG]} wrong, {counts[Verdict.WARN]} worth a look, {counts[Verdict.OK]} well."
    )
    console.print(Text(summary, style=_STYLES[worst(findings)]))


def _status(settings: Settings, head: str | None) -> dict[str, Any] | None:
    cluster = settings.cluster.model_copy(update={"address": head or settings.cluster.address})
    if cluster.address is None:
        return None
    try:
        return cluster_commands.look_at(settings.model_copy(update={"cluster": cluster}))
    except Exception as error:
        # A person wants a bundle when things are broken; an error here must not cost it.
        return {"could not be asked": str(error)}


def needed_ports(node: NodeSettings) -> list[int]:
    """The ports that other machines must reach; a head's metrics are read on its own machine."""
    if isinstance(node, HeadSettings):
        first, (_, _, _, *workers) = node.first_port, reached_ports(node, node.num_worker_ports)
        return [node.gcs_port, first, first + 1, *workers]
    return reached_ports(node, node.num_worker_ports)


def listen(
    ports: Sequence[int],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[list[socket.socket], float], list[socket.socket]] = lambda listeners, timeout_s: (
        select.select(listeners, [], [], timeout_s)[0]
    ),
) -> None:
    """Listen at every port that is free, and print who reaches which one.

    Args:
        ports: of this machine.
        seconds: how long.
        clock: in seconds.
        wait: returns the listeners that somebody has reached, at the latest after so many seconds.

    Raises:
        ConfigurationError: every port is taken.
    """
    listeners: dict[socket.socket, int] = {}
    with contextlib.ExitStack() as stack:
        for port in ports:
            try:
                listeners[stack.enter_context(socket.create_server(("", port)))] = port
            except OSError as error:
                click.echo(
                    f"Port {port} is taken ({error.strerror}). Knock at it all the same: the program that "
                    "uses it answers.",
                    err=True,
                )
        if not listeners:
            raise ConfigurationError(
                "Every port is taken, perhaps by Ray, which answers as well. On the other machine, run "
                "`rayface doctor --knock HOST`."
            )
        heard = ", ".join(map(str, listeners.values()))
        click.echo(f"Listening at {heard} for {seconds:.0f} s; Ctrl+C ends it.")
        until = clock() + seconds
        while (left_s := until - clock()) > 0:
            for ready in wait(list(listeners), min(left_s, 1.0)):
                # A machine that knocks hangs up, and may have done so already.
                with contextlib.suppress(OSError):
                    connection, (peer, *_) = ready.accept()
                    connection.close()
                    click.echo(f"{peer} reached port {listeners[ready]}.")


def _knock(host: str, node: NodeSettings) -> None:
    problems = knock_all(host, needed_ports(node))
    for port, problem in problems.items():
        click.echo(f"{'wrong' if problem else 'ok':<6}{host}:{port} {problem or 'is reached'}")
    sys.exit(EXITS[Verdict.WRONG] if any(problems.values()) else 0)
