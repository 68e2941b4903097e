"""`rayface up` and `down`: a cluster on this machine that stays between commands. Others find it here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click
from filelock import Timeout

from cluster.cli.printable import printable, say
from cluster.errors import ClusterUnavailable, ConfigurationError
from cluster.node import kept
from cluster.node.kept import KeptCluster, Orders
from cluster.node.supervisor import last_line, log_folder
from cluster.ray_variables import temp_dir_variables
from cluster.settings import Settings, load_settings

_IDLE_MINUTES = 240.0
_END_WITHIN_S = 30.0
_LOOK_EVERY_S = 0.1


@click.command()
@click.option(
    "--idle-minutes",
    type=click.FloatRange(min=0),
    default=_IDLE_MINUTES,
    show_default=True,
    help="End it after so many minutes in which no program used it; 0 for never.",
)
@click.option("--model", help="A model by name (see `rayface models`).")
@click.option(
    "--config", type=click.Path(path_type=Path), help="A settings file instead of configs/local.toml."
)
def up(idle_minutes: float, model: str | None, config: Path | None) -> None:
    """Keep a cluster with a ready detector on this machine, for many short runs.

    It stays when the terminal closes, until `rayface down` or until nobody has used it for a while. Only this
    machine and this user's programs can use it. `detect`, `status` and `doctor` find it by themselves.

    Exit code: 0 it is up, 2 wrong use, 3 it did not start.
    """
    settings = load_settings(config, **({"detector": {"model": model}} if model else {}))
    if settings.cluster.address is not None:
        raise ConfigurationError(
            f"The settings name a cluster already ({settings.cluster.address}). `rayface up` keeps one on "
            "this machine: use settings without `cluster.address`."
        )
    with _alone():
        before = kept.read()
        if before is not None and not before.why_ended():
            click.echo(f"It is up already: {printable(str(before))}.")
            if other := before.why_other(settings):
                say(f"But {other}. `rayface down` ends it; then start it anew.")
            return
        kept.remove_leftovers(before)
        cluster = _start(settings, idle_minutes)
    click.echo(f"Up: {cluster}. `rayface down` ends it.")


@click.command()
def down() -> None:
    """End the cluster that `rayface up` keeps on this machine, and nothing else.

    Exit code: 0 nothing of it is left, 2 wrong use, 3 it could not be ended.
    """
    with _alone():
        cluster = kept.read()
        if cluster is None:
            kept.remove_leftovers(None)
            click.echo("No cluster is kept on this machine.")
            return
        if cluster.boot == kept.boot() and cluster.keeper.is_alive():
            kept.ask_to_end()
            _wait(lambda: not kept.alive(cluster.processes), _END_WITHIN_S)
        kept.remove_leftovers(cluster)
        if cluster.boot == kept.boot() and not _wait(lambda: not kept.alive(cluster.processes), 5.0):
            left = ", ".join(f"{each.name} ({each.pid})" for each in kept.alive(cluster.processes))
            raise ClusterUnavailable(f"The system does not end these processes: {left}.")
    click.echo("Down; nothing of it is left.")


def _start(settings: Settings, idle_minutes: float) -> KeptCluster:
    # The path must be short: sockets lie below it, and theirs may have 107 characters.
    short = None if sys.platform == "win32" else "/tmp"
    temp_dir = tempfile.mkdtemp(prefix=kept.TEMP_PREFIX, dir=short)
    orders = Orders(settings.model_dump_json(), idle_minutes, temp_dir)
    output = log_folder(None) / "up-output.log"
    flags = {"DETACHED_PROCESS", "CREATE_NEW_PROCESS_GROUP"}
    modules = os.pathsep.join(filter(None, sys.path))
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.deployment.keeper"],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                **temp_dir_variables(Path(temp_dir)),
                "PYTHONPATH": modules,
            },
            # It is nobody's child of this terminal: closing that does not end it.
            start_new_session=True,
            creationflags=sum(getattr(subprocess, each, 0) for each in flags),
        )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(json.dumps(asdict(orders)).encode())
    try:
        until = time.monotonic() + settings.cluster.start_timeout_s + 60.0
        while process.poll() is None and time.monotonic() < until:
            if (cluster := kept.read()) is not None and cluster.keeper.pid == process.pid:
                return cluster
            time.sleep(_LOOK_EVERY_S)
    except BaseException:
        process.terminate()
        raise
    process.terminate()
    process.wait(_END_WITHIN_S)
    kept.remove_temp_dir(temp_dir)
    raise ClusterUnavailable(f"The cluster did not start. {last_line(output)}")


def _wait(is_done: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not (done := is_done()) and time.monotonic() < until:
        time.sleep(_LOOK_EVERY_S)
    return done


@contextmanager
def _alone() -> Iterator[None]:
    """Let one `up` or `down` of this user work at a time."""
    lock = kept.lock()
    try:
        lock.acquire(timeout=_END_WITHIN_S)
    except Timeout as error:
        raise ClusterUnavailable(
            "Another `rayface up` or `rayface down` is at work. Wait until it is done."
        ) from error
    try:
        yield
    finally:
        lock.release()
