"""`rayface bench`: puts load on a cluster, shows what it does, and says in one sentence what the limit is."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from actors.faces import Priority
from actors.images import ImageSource, Limits
from cluster.bench import inputs
from cluster.bench.bench import bench as measure_loads
from cluster.bench.compare import compare as compare_reports
from cluster.bench.compare import read_report
from cluster.bench.limit import Kind
from cluster.bench.load import Calls, Load
from cluster.bench.measure import Plan
from cluster.bench.windows import Window, percentile
from cluster.cli.bench_view import comparison, tables
from cluster.cli.folder_walk import NotLookedAt
from cluster.cli.kept_cluster import find_suitable, joining
from cluster.cli.options import address_option, config_option, model_option, settings_of_model
from cluster.cli.photo_paths import PhotoFinder, why_unreadable
from cluster.cli.printable import printable, say
from cluster.errors import ConfigurationError
from cluster.settings import Settings, load_settings

_EXIT_SOME_NOT_DETECTED = 1
_EXIT_NOTHING_WAS_ANSWERED = 3


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[float] | None:
    """Read numbers above 0 with commas between them, like 1,8,32."""
    if value is None:
        return None
    try:
        numbers = [float(each) for each in value.split(",")]
    except ValueError:
        numbers = []
    if not numbers or any(not 0 < each < 1e6 for each in numbers):
        raise click.BadParameter(f"{value!r} is no list of numbers above 0. Write them like 1,8,32.")
    return numbers


def _counts(context: click.Context, parameter: click.Parameter, value: str | None) -> list[int] | None:
    """Read whole numbers above 0 with commas between them."""
    numbers = _numbers(context, parameter, value)
    if numbers is not None and any(each != int(each) for each in numbers):
        raise click.BadParameter(f"{value!r} has a number that is not whole. Write them like 1,8,32.")
    return None if numbers is None else [int(each) for each in numbers]


@click.command()
@click.argument("paths", nargs=-1)
@click.option(
    "--concurrency", callback=_counts, metavar="LIST", help="Calls outstanding at all times, for each load."
)
@click.option(
    "--rate",
    callback=_numbers,
    metavar="LIST",
    help="Images a second for each load, whether earlier ones are answered or not.",
)
@click.option("--images-per-call", type=click.IntRange(1, 256), default=1, help="Images of each call.")
@click.option(
    "--pixels",
    type=click.IntRange(16, 4096),
    metavar="SIZE",
    help="Send pixels of SIZE x SIZE at most: of PATHS, or random ones.",
)
@click.option(
    "--megapixels",
    type=click.FloatRange(0.01, 100),
    default=12.0,
    help="Size of the photos that are made up without PATHS.",
)
@click.option("--priority", type=click.Choice([str(each) for each in Priority]), default="interactive")
@click.option("--deadline", type=click.FloatRange(0, min_open=True), help="Seconds that a call may take.")
@click.option("--warm-up", type=click.FloatRange(0), default=3.0, help="Seconds of load before measuring.")
@click.option("--window", type=click.FloatRange(0.1), default=5.0, help="Seconds of each window.")
@click.option(
    "--max-windows", type=click.IntRange(1), default=10, help="Windows after which a load ends anyway."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON; progress goes to standard error.")
@click.option(
    "--compare",
    "earlier",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Compare with what an earlier bench printed with --json.",
)
@model_option
@address_option
@config_option
def bench(
    paths: tuple[str, ...],
    concurrency: list[int] | None,
    rate: list[float] | None,
    images_per_call: int,
    pixels: int | None,
    megapixels: float,
    priority: str,
    deadline: float | None,
    warm_up: float,
    window: float,
    max_windows: int,
    as_json: bool,
    earlier: Path | None,
    model: str | None,
    address: str | None,
    config: Path | None,
) -> None:
    """Measure how much a cluster can do, and say what the limit is.

    PATHS are photos, folders or patterns, which are sent in turn. Without PATHS, photos are made up.

    Each load runs until three windows in a row agree within 10 % in images a second and in the median
    latency. With --rate, latency counts from the moment at which a call should have begun.

    Exit code: 0 every image got a detection, 1 some were rejected or failed, 2 wrong use, 3 no detector could
    be asked, or none answered any more.
    """
    if concurrency and rate:
        raise click.UsageError("A load is either --concurrency or --rate: give one of them.")
    loads = [Load(rate=each) for each in rate or ()] or [
        Load(concurrency=each) for each in concurrency or (1, 8)
    ]
    before = read_report(earlier) if earlier else None
    detector = settings_of_model(model)
    settings = load_settings(
        config,
        client={"images_per_call": images_per_call},
        **({"detector": detector} if detector else {}),
        **({"cluster": {"address": address}} if address else {}),
    )
    if model is not None and settings.cluster.address is not None:
        raise click.UsageError(
            f"The detectors of {settings.cluster.address} run the model that they were started with, so "
            "--model would change nothing there. Leave it out, or measure without an address."
        )
    messages = Console(stderr=True, highlight=False, soft_wrap=True)
    if settings.cluster.address is None:
        kept, problem = find_suitable(settings)
        if problem:
            said = problem if kept else f"{problem} This run starts a Ray of its own."
            messages.print(Text(printable(said), style="yellow"))
        if kept is not None:
            messages.print(Text(printable(f"Asking {kept}."), style="dim"))
            settings = joining(settings, kept)
    images, about = _images(paths, pixels, megapixels, settings)

    def tell(load: Load, done: Window | None) -> None:
        if done is None:
            said, style = f"{warm_up:g} s of warm-up, then windows of {window:g} s", "dim"
        elif not done.latencies_ms:
            said, style = "no call was answered", "yellow"
        else:
            p50 = percentile(done.latencies_ms, 50)
            said, style = f"{done.images_per_s:.1f} images/s, p50 {p50:.1f} ms", "dim"
        messages.print(Text(f"{load}: {said}", style=style))

    calls = Calls(images_per_call, Priority(priority), deadline)
    plan = Plan(warm_up, window, max_windows)
    found = asyncio.run(measure_loads(settings, images, about, loads, calls, plan, tell))
    compared = compare_reports(before, found) if before is not None else None
    if as_json:
        click.echo(json.dumps(found if compared is None else found | {"compared": compared}, indent=2))
    else:
        console = Console(highlight=False, soft_wrap=True)
        console.print(tables(found))
        if compared is not None:
            console.print(comparison(compared, str(earlier)))
        limit = f"\n{found['limit']['load']}: {found['limit']['sentence']}"
        console.print(Text(printable(limit, keep_lines=True), style="bold"))
    if found["limit"]["kind"] == Kind.UNANSWERED:
        sys.exit(_EXIT_NOTHING_WAS_ANSWERED)
    if any(each["outcomes"]["failed"] or each["outcomes"]["rejected"] for each in found["loads"]):
        sys.exit(_EXIT_SOME_NOT_DETECTED)


def _images(
    paths: Sequence[str], pixels: int | None, megapixels: float, settings: Settings
) -> tuple[list[ImageSource], str]:
    """What is sent, and what it is in words."""
    if not paths and pixels is None:
        return inputs.made_up_photos(megapixels), f"made-up photos of {megapixels:g} megapixels"
    if not paths:
        assert pixels is not None
        return inputs.made_up_pixels(pixels), f"random pixels of {pixels} x {pixels}"
    named = list(PhotoFinder().find(paths, sys.stdin))
    if not named:
        raise ConfigurationError(
            "There is no photo to send. Name photos, folders with photos, or nothing for made-up photos."
        )
    if unusable := [
        problem
        for asked in named
        if (problem := asked if isinstance(asked, NotLookedAt) else why_unreadable(asked.path))
    ]:
        others = f" So it is with {len(unusable) - 1} more of those that were named." if unusable[1:] else ""
        raise ConfigurationError(
            f"{printable(unusable[0].path)} cannot be used. {unusable[0].outcome.detail}{others} Name photos "
            "that are there, folders with photos, or nothing for made-up photos."
        )
    found = [asked.path for asked in named]
    if pixels is None:
        return list(found), f"{len(found)} photos"
    limits = Limits.of(settings.detector)
    made = inputs.pixels_of(found, pixels, limits, say)
    return made, f"pixels of {len(made)} photos, {pixels} x {pixels} at most"
