"""`rayface head`, `join`, `token`, `install`, `uninstall`: they make machines part of a cluster."""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import click

from actors.device import Device
from actors.errors import DeviceHeld
from actors.ownership import DeviceLock
from cluster.cli.printable import printable
from cluster.errors import ClusterUnavailable, ConfigurationError, DeviceTaken, RayfaceError
from cluster.node import addresses, leaving, ray_start, supervisor, windows_task
from cluster.node import token as tokens
from cluster.node.addresses import knock
from cluster.node.contract import DRAIN_NOTE
from cluster.node.disk import full_disk
from cluster.node.findings import Finding
from cluster.node.preflight import check_join
from cluster.node.process_tree import ProcessTree
from cluster.ray_variables import last_cluster_file
from cluster.settings import Settings, load_settings, own_config

_config = click.option(
    "--config", type=click.Path(path_type=Path), help="A settings file instead of the shipped one."
)
_print = click.option("--print", "only_print", is_flag=True, help="Show what would be run, and run nothing.")


@click.command()
@click.option("--address", help="This machine's address or name, by which all others reach it.")
@_print
@_config
def head(address: str | None, only_print: bool, config: Path | None) -> None:
    """Run the head of a cluster on this machine, until Ctrl+C.

    Without --address, others reach it by this machine's address on the way out. Only this machine can open
    the dashboard.
    """
    chosen = {"head": {"address": address}} if address else {}
    settings = load_settings(config or own_config("head.toml"), **chosen).head
    launch = ray_start.head(settings)
    if only_print:
        click.echo(str(launch))
        return
    _, is_new = tokens.have_token()
    log, folder = supervisor.supervisor_log("head", settings.log_folder)
    if is_new and sys.stdout.isatty():
        click.echo(f"The cluster's new token, shown only this once: {tokens.read_token()}")
    elif is_new:
        log.info("A new token was made; `rayface token show` shows it.")
    home = f"{launch.value('--node-ip-address')}:{settings.gcs_port}"

    def head_answers() -> None:
        if problem := knock(*addresses.split_address(home)):
            raise ClusterUnavailable(f"The callback probe waits for the head at {home}: {problem}.")

    def start_callback_probe(_: ray_start.Launch) -> ProcessTree:
        file = folder / "callback-probe-output.log"
        # Appended, so that the reason of an earlier end stays; begun anew before it is large.
        is_small = not file.exists() or file.stat().st_size < 1_000_000
        with file.open("ab" if is_small else "wb") as output:
            return ProcessTree(
                [sys.executable, "-m", "cluster.deployment.callback_probe", home], launch.environment, output
            )

    output = supervisor.NodeOutput(folder / "head-ray.log")

    def may_start() -> None:
        if problem := full_disk([settings.temp_dir or Path(tempfile.gettempdir()), folder]):
            raise ClusterUnavailable(problem)
        if knock(*addresses.split_address(home)):
            # Nobody answers there, so what an earlier head has noted is not true any more.
            last_cluster_file(settings.temp_dir).unlink(missing_ok=True)

    ray = supervisor.Supervisor(
        lambda: launch, output.start, log, may_start=may_start, last_words=output.last_words
    )
    quiet = log.getChild("callback_probe")
    quiet.setLevel("ERROR")
    callback_probe = supervisor.Supervisor(
        lambda: launch, start_callback_probe, quiet, may_start=head_answers
    )
    _stop_on_signals(ray, callback_probe)
    beside = threading.Thread(target=callback_probe.run, name="callback-probe")
    beside.start()
    log.info("Dashboard: http://%s:%d", settings.dashboard_host, settings.dashboard_port)
    log.info("On the machine with the GPU: rayface join %s", home)
    try:
        ray.run()
    finally:
        callback_probe.stop()
        beside.join()


@click.command()
@click.argument("head_address", metavar="HEAD")
@click.option("--address", help="This machine's address or name, by which the head reaches it.")
@click.option(
    "--device",
    "devices",
    multiple=True,
    help="A device to lend: 'directml:0', 'directml:1', …; 'cpu' for a trial.",
)
@click.option("--check", "only_check", is_flag=True, help="Check whether joining would work, and end.")
@click.option("--wait", is_flag=True, help="Wait for a head that is away instead of ending (at boot).")
@_print
@_config
def join(
    head_address: str,
    address: str | None,
    devices: tuple[str, ...],
    only_check: bool,
    wait: bool,
    only_print: bool,
    config: Path | None,
) -> None:
    """Lend this machine's GPU to the cluster whose head is at HEAD (HOST:PORT), until Ctrl+C.

    It first checks whether that will work: token, versions, the way there and back, model, device.

    Exit code: 0 ended in order, 2 wrong use, 3 it would not work (the message says why), 4 another process of
    this machine owns the device or has joined already.
    """
    chosen: dict[str, Any] = {}
    if address:
        chosen["address"] = address
    if devices:
        chosen["devices"] = devices
    settings = load_settings(config or own_config("windows.toml"), **({"join": chosen} if chosen else {}))
    if only_print:
        click.echo(str(ray_start.join(head_address, settings.join)))
        return
    lock = DeviceLock(settings.join.node_lock)
    try:
        lock.acquire("rayface join", head_address)
    except DeviceHeld as held:
        raise DeviceTaken(
            f"This machine has joined already: {held.holder or 'by another process'}. End that process first."
        ) from held
    try:
        if not wait or only_check:
            for finding in check_join(head_address, settings):
                words = printable(_in_words(finding), keep_lines=True)
                click.echo(f"{finding.verdict:<7} {finding.name}: {words}")
        if not only_check:
            _keep_joined(head_address, settings, wait)
    finally:
        lock.release()


def _in_words(finding: Finding) -> str:
    return f"{finding.evidence}. {finding.advice}" if finding.advice else finding.evidence


def _keep_joined(head_address: str, settings: Settings, check_first: bool) -> None:
    log, folder = supervisor.supervisor_log("join", settings.join.log_folder)
    notes = folder / f"notes-{settings.join.node_lock}"
    notes.mkdir(exist_ok=True)
    (notes / DRAIN_NOTE).unlink(missing_ok=True)
    output = supervisor.NodeOutput(folder / "join-ray.log")
    unchecked = [check_first]
    devices = ", ".join(settings.join.devices)
    locks = [DeviceLock(Device.parse(device).lock_name) for device in settings.join.devices]

    def look_first() -> None:
        if problem := full_disk([settings.join.temp_dir or Path(tempfile.gettempdir()), folder]):
            raise ClusterUnavailable(problem)
        if problem := knock(*addresses.split_address(head_address), 5.0):
            raise ClusterUnavailable(
                f"The head at {head_address} does not answer: {problem}. `rayface doctor {head_address}` "
                "says more."
            )
        if unchecked[0]:
            for finding in check_join(head_address, settings):
                log.info("%s: %s", finding.name, _in_words(finding))
            unchecked[0] = False

    def moved(launch: ray_start.Launch) -> bool:
        if settings.join.address is not None:
            return False
        try:
            return addresses.own_address(head_address) != launch.value("--node-ip-address")
        except RayfaceError:
            return False

    kept = supervisor.Supervisor(
        lambda: ray_start.join(head_address, settings.join, str(notes), _next_turn(notes)),
        output.start,
        log,
        may_start=look_first,
        drain=supervisor.drain_by_note(
            notes, lambda: all(lock.holder() is None for lock in locks), settings.join.drain_s
        ),
        is_up=output.is_up,
        on_up=lambda: log.info("Lending %s to %s; Ctrl+C ends it.", devices, head_address),
        changed=moved,
        last_words=output.last_words,
        gone=leaving.announcer(head_address, log),
    )
    _stop_on_signals(kept)
    log.info("Joining %s to lend %s; Ctrl+C ends it.", head_address, devices)
    kept.run()
    log.info("Ended; nothing of Ray is left here.")


def _next_turn(notes: Path) -> int:
    """The number of this start of Ray, counted over all supervisors; see `ray_start.node_manager_ports`."""
    file = notes / "turn"
    try:
        turn = int(file.read_text()) + 1
    except (OSError, ValueError):
        turn = 0
    # A full disk must not end the supervisor; the next start may then take the same port again.
    with contextlib.suppress(OSError):
        file.write_text(str(turn))
    return turn


def _stop_on_signals(*supervisors: supervisor.Supervisor) -> None:
    def stop(*_: object) -> None:
        for each in supervisors:
            each.stop()

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), stop)


@click.group()
def token() -> None:
    """Make, show or save the cluster's token: it lets its owner run code on every machine of the cluster."""


@token.command()
def new() -> None:
    """Make a token, keep it where Ray looks for it, and show it once."""
    path = tokens.token_file()
    if path.exists():
        raise ConfigurationError(f"There is a token in {path} already. Remove that file to make another one.")
    value, _ = tokens.have_token()
    click.echo(f"Kept in {path}. On the other machines, `rayface token save` asks for it:", err=True)
    click.echo(value)


@token.command()
def show() -> None:
    """Show the token that this machine uses."""
    click.echo(tokens.read_token())


@token.command()
def save() -> None:
    """Ask for the head's token and keep it where Ray looks for it."""
    # On a terminal the input is hidden. The token is never an argument: others can see command lines.
    hidden = sys.stdin.isatty()
    value = click.prompt("Token", hide_input=True) if hidden else sys.stdin.readline()
    click.echo(f"Kept in {tokens.save_token(value)}.")


@click.command()
@click.argument("head_address", metavar="HEAD")
@click.option(
    "--at-boot", is_flag=True, help="Start at boot instead of at log-on; some drivers show no GPU then."
)
@_print
@_config
def install(head_address: str, at_boot: bool, only_print: bool, config: Path | None) -> None:
    """Let Windows join HEAD by itself, by a scheduled task: at log-on, and again after a failure."""
    task = windows_task.describe(head_address, at_boot, config)
    if at_boot:
        click.echo(
            "Note: before anybody logs on, the task runs in session 0, where some drivers show no GPU. "
            "If the log of `rayface join` says so, install the task without --at-boot.",
            err=True,
        )
    if only_print:
        click.echo(task)
        return
    windows_task.register(task)
    click.echo("Registered. `schtasks /Run /TN rayface` starts it now, `rayface uninstall` removes it.")


@click.command()
@_print
def uninstall(only_print: bool) -> None:
    """Remove the scheduled task, and end what it runs."""
    if only_print:
        click.echo(windows_task.removal())
        return
    windows_task.remove()
    click.echo("The scheduled task is gone.")
