"""`rayface place`, `remove`, `status` and `circuit reset`: they show a cluster and change it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from cluster.cli.kept_cluster import find_kept, is_address_chosen, joining
from cluster.cli.printable import printable, say
from cluster.cli.status_view import StatusView, clients, table
from cluster.client.detector_pool import DetectorPool
from cluster.client.registry import ClientEntry, leave_reset, read_clients
from cluster.connection.connection import Connection
from cluster.errors import ClusterUnavailable, ConfigurationError, DetectorNotReady, NotAnswered
from cluster.node import kept
from cluster.node.kept_settings import settings_of
from cluster.settings import Settings, load_settings, own_config
from cluster.telemetry.rate_limit import rate_limited_log

_ANSWER_WITHIN_S = 5.0
_WATCH_EVERY_S = 2.0
#: How long a detector may take to answer what it has accepted, before it is placed anew.
_DRAIN_S = 120.0
_EXIT_NOT_WELL = 3

_address = click.option("--address", help="The head's address; without it, the one of the settings.")
_json = click.option("--json", "as_json", is_flag=True, help="As JSON.")
_config = click.option(
    "--config", type=click.Path(path_type=Path), help="A settings file instead of the shipped one."
)


@click.command()
@click.option(
    "--replace",
    "is_replacing",
    is_flag=True,
    help="Place every detector anew, with this machine's settings. No photo is lost.",
)
@click.option("--name", help="With --replace: only the detector of this name.")
@_address
@_json
@_config
def place(
    is_replacing: bool, name: str | None, address: str | None, as_json: bool, config: Path | None
) -> None:
    """Place a detector on each lent device, and show them all.

    A detector keeps the settings that it was placed with. --replace lets each one answer what it has
    accepted, and places it anew; clients wait meanwhile.

    Exit code: 0 all are ready, 2 wrong use, 3 there is no detector, or one is not ready.
    """
    if name is not None and not is_replacing:
        raise click.UsageError("--name goes with --replace.")
    settings = _settings(address, config)
    rows = asyncio.run(_replace(settings, name) if is_replacing else _place(settings))
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        columns = ("name", "state", "device", "host", "pid", "detail")
        Console(highlight=False, soft_wrap=True).print(table(columns, rows))
        for row in rows if is_replacing else ():
            changed = "; ".join(row["changed"]) or "it has the same settings as before"
            click.echo(printable(f"{row['name']}: {changed}."))
    if not rows or any(row["state"] != "ready" for row in rows):
        sys.exit(_EXIT_NOT_WELL)


@click.command()
@click.argument("name")
@_address
@_config
def remove(name: str, address: str | None, config: Path | None) -> None:
    """Remove a detector whose device is gone for good.

    While a machine still lends a device for it, the next client places it again.

    Exit code: 0 it is gone, 3 there is no detector of that name.
    """
    asyncio.run(_remove(name, _settings(address, config)))
    click.echo(f"{printable(name)} is gone.")


@click.command()
@_address
@click.option("--watch", is_flag=True, help="Show it again every 2 s, until Ctrl+C.")
@_json
@_config
def status(address: str | None, watch: bool, as_json: bool, config: Path | None) -> None:
    """Show the machines, the detectors, and the circuits of every client.

    Exit code: 0 there is a detector, all are ready, and every circuit is closed; 3 something is not well.
    """
    console = Console(highlight=False, soft_wrap=True)
    what = asyncio.run(_show(_settings(address, config), console, watch=watch, as_json=as_json))
    if not what["well"]:
        sys.exit(_EXIT_NOT_WELL)


@click.group()
def circuit() -> None:
    """The circuit breakers that clients keep, one for each detector."""


@circuit.command()
@_address
@click.option("--detector", help="Only the circuits to this detector.")
@_json
@_config
def reset(address: str | None, detector: str | None, as_json: bool, config: Path | None) -> None:
    """Close the circuits of every client, and show their states afterwards.

    A circuit closes by itself when the detector finds the golden photo again; use this to close it sooner.
    """
    entries = asyncio.run(_reset(_settings(address, config), detector))
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in entries], indent=2))
    elif not entries:
        click.echo("This cluster has no client at the moment.")
    else:
        Console(highlight=False, soft_wrap=True).print(clients(entries))


def look_at(settings: Settings) -> dict[str, Any]:
    """What `rayface status --json` prints.

    Raises:
        ClusterUnavailable: the cluster does not answer.
    """

    async def look() -> dict[str, Any]:
        async with _joined(settings) as cluster:
            return (await _view(cluster, settings).look())[0]

    return asyncio.run(look())


def _settings(address: str | None, config: Path | None) -> Settings:
    settings = load_settings(
        config or own_config("backend.toml"), **({"cluster": {"address": address}} if address else {})
    )
    if not is_address_chosen(address, config):
        settings = of_this_machine(settings)
    if settings.cluster.address is None:
        raise ConfigurationError(
            "The settings name no cluster, and an embedded Ray belongs to one program alone. Name the head "
            "by --address."
        )
    return settings


def of_this_machine(settings: Settings) -> Settings:
    """The settings for the cluster of `rayface up`, if one is alive; says which one it is."""
    cluster, problem = find_kept()
    if problem:
        say(problem)
    if cluster is None:
        return settings
    say(f"This is {cluster}.")
    return joining(settings, cluster)


@asynccontextmanager
async def _joined(settings: Settings) -> AsyncIterator[Connection]:
    connection = Connection(settings, rate_limited_log("rayface.command"))
    try:
        await connection.open()
        yield connection
    finally:
        await connection.close()


async def _place(settings: Settings) -> list[dict[str, Any]]:
    """Place the missing detectors, wait until every detector has started, and return a row for each."""
    async with _joined(settings) as cluster:
        pool = DetectorPool(cluster, settings.circuit)
        try:
            with contextlib.suppress(DetectorNotReady):
                await pool.start(settings.cluster.start_timeout_s)
            if not pool.detectors:
                # Once more, for the reason.
                await cluster.place_detectors(timeout_s=_ANSWER_WITHIN_S)
            # One that was never heard may wait in Ray for its device to come back; do not wait as long.
            timeouts_s = {name: 90.0 if each.health else 20.0 for name, each in pool.detectors.items()}
            return await asyncio.gather(*(_placed(pool, *each, wait_s=60.0) for each in timeouts_s.items()))
        except NotAnswered as error:
            raise DetectorNotReady(str(error), error.fault.failure) from error


async def _replace(settings: Settings, name: str | None) -> list[dict[str, Any]]:
    """Place detectors anew, one after the other, and return a row for each that says what has changed."""
    async with _joined(settings) as cluster:
        pool = DetectorPool(cluster, settings.circuit)
        try:
            names = await cluster.list_detectors(timeout_s=_ANSWER_WITHIN_S)
            if name is not None and name not in names:
                raise DetectorNotReady(
                    f"No detector here is called {name!r}; there are: {', '.join(names) or 'none'}."
                )
            rows = []
            for each in names if name is None else [name]:
                before = await _settings_of(cluster, each)
                await cluster.replace_detector(each, _DRAIN_S, timeout_s=_DRAIN_S + 60.0)
                wait_s = settings.cluster.start_timeout_s
                row = await _placed(pool, each, wait_s + 30.0, wait_s)
                now = await _settings_of(cluster, each)
                rows.append(row | {"before": before, "now": now, "changed": _changed(before, now)})
        except NotAnswered as error:
            raise DetectorNotReady(str(error), error.fault.failure) from error
    _record(settings)
    return rows


def _record(settings: Settings) -> None:
    """Keep with the cluster of `rayface up`, if it was that one, what its detector is made of now."""
    cluster, _ = find_kept()
    if cluster is not None and cluster.address == settings.cluster.address:
        kept.write(replace(cluster, settings=settings_of(settings)))


async def _settings_of(cluster: Connection, name: str) -> dict[str, Any]:
    """What a detector was placed with; empty if it does not say."""
    try:
        return (await cluster.health(name, 0.0, timeout_s=_ANSWER_WITHIN_S)).settings or {}
    except NotAnswered:
        return {}


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each setting that differs, with its value before and now."""
    if not before or not now:
        return ["it is not known what it was placed with" if not before else "it does not answer yet"]
    return [
        f"detector.{name}: {before.get(name)} before, {now.get(name)} now"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


async def _placed(pool: DetectorPool, name: str, timeout_s: float, wait_s: float) -> dict[str, Any]:
    try:
        health = await pool.health(name, wait_s, timeout_s)
    except DetectorNotReady as error:
        row = dict.fromkeys(("device", "host", "pid"), "")
        return {"name": name, "state": "away", **row, "detail": str(error)}
    known = asdict(health)
    row = {key: known[key] for key in ("name", "state", "device", "host", "pid", "detail")}
    return row | {"state": str(health.state)}


async def _show(settings: Settings, console: Console, *, watch: bool, as_json: bool) -> dict[str, Any]:
    async with _joined(settings) as cluster:
        view = _view(cluster, settings)
        what, shown = await view.look()
        if as_json:
            click.echo(json.dumps(what, indent=None if watch else 2))
        elif not watch:
            console.print(shown)
        if not watch:
            return what
        with (
            Live(shown, console=console, auto_refresh=False)
            if not as_json
            else contextlib.nullcontext() as live
        ):
            while True:
                await asyncio.sleep(_WATCH_EVERY_S)
                what, shown = await view.look()
                if live is None:
                    click.echo(json.dumps(what))
                else:
                    live.update(shown, refresh=True)


def _view(cluster: Connection, settings: Settings) -> StatusView:
    return StatusView(cluster, DetectorPool(cluster, settings.circuit, only_look=True), settings.detector)


async def _remove(name: str, settings: Settings) -> None:
    async with _joined(settings) as cluster:
        try:
            await cluster.remove_detector(name, timeout_s=_ANSWER_WITHIN_S)
        except NotAnswered as error:
            raise DetectorNotReady(str(error), error.fault.failure) from error


async def _reset(settings: Settings, detector: str | None) -> list[ClientEntry]:
    async with _joined(settings) as cluster:
        try:
            known = await cluster.list_detectors(timeout_s=_ANSWER_WITHIN_S)
            if detector is not None and detector not in known:
                raise ConfigurationError(
                    f"No detector here is called {detector!r}; there are {', '.join(known) or 'none'}."
                )
            await asyncio.sleep(await leave_reset(cluster, detector))
            return await read_clients(cluster)
        except NotAnswered as error:
            raise ClusterUnavailable(
                f"The cluster at {cluster.address} could not be asked to close circuits. {error}"
            ) from error
