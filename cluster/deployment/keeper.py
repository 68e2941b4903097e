"""The process that keeps the local cluster of `rayface up`: starts Ray, places the detector, and waits.

    python -m cluster.deployment.keeper    reads its orders from standard input, as JSON

It is the driver of an embedded Ray, so Ray's processes end with it, however it ends. It ends when `rayface
down` leaves a note, when no program has used the cluster for long enough, and when Ray ends.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Collection

import psutil

from actors.faces import State
from cluster import ray_internals
from cluster.deployment import joining, placement
from cluster.errors import DetectorNotReady, RayfaceError
from cluster.node import kept
from cluster.node.contract import COMMON
from cluster.node.kept import KeptCluster, KeptProcess, Orders
from cluster.node.kept_settings import settings_of
from cluster.node.process_tree import adopt_orphans
from cluster.node.supervisor import supervisor_log
from cluster.settings import Settings

_LOOK_EVERY_S = 0.5
_COUNT_EVERY_S = 15.0
_END_WITHIN_S = 10.0


def wait_for_end(
    idle_s: float,
    *,
    is_asked: Callable[[], bool],
    has_users: Callable[[], bool],
    why_ended: Callable[[], str],
    clock: Callable[[], float] = time.monotonic,
    wait: Callable[[float], object] = time.sleep,
) -> str:
    """Wait until the cluster is to end, and return the reason.

    Args:
        idle_s: seconds without use after which it ends; 0 for never.
        is_asked: whether a person wants it to end.
        has_users: whether a program uses it now.
        why_ended: why the cluster is of no more use; "" while it works.
        clock: in seconds.
        wait: waits for so many seconds.
    """
    used_at = counted_at = clock()
    while True:
        if is_asked():
            return "it was asked to"
        if reason := why_ended():
            return reason
        now = clock()
        if now - counted_at >= _COUNT_EVERY_S:
            counted_at = now
            if has_users():
                used_at = now
            elif idle_s and now - used_at >= idle_s:
                return f"no program has used it for {idle_s / 60:g} minutes"
        wait(_LOOK_EVERY_S)


def has_users(port: int, own: Collection[int]) -> bool:
    """Whether a process outside `own` is connected to the head's port on this machine.

    Every program that uses a cluster keeps such a connection, whether it is one of ours or not.
    """
    try:
        return any(
            each.raddr and each.raddr.port == port and each.pid not in own
            for each in psutil.net_connections("tcp")
            if each.status == psutil.CONN_ESTABLISHED and each.pid is not None
        )
    except psutil.Error:
        # A system that does not tell must not cost somebody the cluster that is in use.
        return True


def main() -> None:
    """Keep a cluster until it is to end."""
    orders = Orders(**json.load(sys.stdin))
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # The terminal may close, and Ctrl+C is for other programs there.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    log, _ = supervisor_log("up", None)
    try:
        _keep(orders, log)
    except RayfaceError as error:
        # The command that waits for the record shows the last line of this process.
        log.error("%s", error)
    except Exception:
        log.exception("The kept cluster ended by an error that nobody foresaw. Please report it.")
    finally:
        _end_children()
        kept.remove_temp_dir(orders.temp_dir)
        os._exit(0)


def _keep(orders: Orders, log: logging.Logger) -> None:
    settings = Settings.model_validate_json(orders.settings_json)
    for name, value in COMMON.items():
        os.environ.setdefault(name, value)
    leave = joining.join_or_start(settings)
    try:
        import ray

        ray_internals.silence_error_listener()
        _wait_until_ready(settings)
        me = psutil.Process()
        entries = [KeptProcess.of(each) for each in (me, *me.children(recursive=True))]
        cluster = KeptCluster(
            address=ray.get_runtime_context().gcs_address,
            since=time.time(),
            idle_minutes=orders.idle_minutes,
            temp_dir=orders.temp_dir,
            processes=tuple(each for each in entries if each is not None),
            settings=settings_of(settings),
        )
        kept.write(cluster)
        log.info("Ready: %s.", cluster)
        port = int(cluster.address.rpartition(":")[2])
        reason = wait_for_end(
            orders.idle_minutes * 60,
            is_asked=kept.is_asked_to_end,
            has_users=lambda: has_users(port, {me.pid, *(each.pid for each in me.children(recursive=True))}),
            why_ended=cluster.why_ended,
        )
        log.info("Ended: %s.", reason)
    finally:
        with contextlib.suppress(Exception):
            leave()
    _end_children()
    kept.remove_leftovers(cluster)


def _wait_until_ready(settings: Settings) -> None:
    import ray

    timeout_s = settings.cluster.start_timeout_s
    for name, detector in placement.place_all(settings).items():
        health = ray.get(detector.health.remote(timeout_s), timeout=timeout_s + 30.0)
        if health.state is not State.READY:
            raise DetectorNotReady(f"{name} is {health.state}: {health.detail}")


def _end_children() -> None:
    """Kill what Ray has left of its processes; all of them are children of this one."""
    children = psutil.Process().children(recursive=True)
    _, left = psutil.wait_procs(children, timeout=_END_WITHIN_S)
    for each in left:
        with contextlib.suppress(psutil.Error):
            each.kill()
    psutil.wait_procs(left, timeout=_END_WITHIN_S)


if __name__ == "__main__":
    main()
