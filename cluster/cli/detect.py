"""`rayface detect`: reads photos, prints a table or JSON lines, and shows people a progress bar."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from actors import golden, models
from actors.drawing import draw_faces, write_jpeg
from actors.errors import ImageFault, ModelUnavailable
from actors.faces import Detected, Failed, Failure, Outcome, Rejected, Stamp
from actors.images import Limits, read_upright
from cluster.background import repeat_async
from cluster.cli.kept_cluster import joining
from cluster.cli.photo_paths import Photo, shown
from cluster.cli.timings import Start
from cluster.client.face_client import FaceClient
from cluster.client.parts import Parts
from cluster.connection.early_process import EarlyProcess
from cluster.errors import (
    ClientNotUsable,
    ClusterUnavailable,
    ConfigurationError,
    DetectorNotReady,
    RayfaceError,
)
from cluster.node.kept import KeptCluster
from cluster.settings import Settings
from cluster.telemetry.rate_limit import rate_limited_log

#: How often to look whether photos wait for a detector, and whether the kept cluster is alive.
_LOOK_EVERY_S = 1.0
_KEPT_ENDED = (
    "The cluster that `rayface up` kept has ended. Start it again with `rayface up`, or run detect again: "
    "without it, detect starts a cluster of its own."
)
_STYLES = {"detected": "green", "rejected": "yellow", "failed": "red"}


async def detect(
    photos: Iterable[Photo],
    num_photos: int | None,
    settings: Settings,
    *,
    as_json: bool,
    annotate: Path | None,
    timings: bool = False,
    kept: KeptCluster | None = None,
    early: EarlyProcess | None = None,
) -> Counter[str]:
    """Find the faces in every photo, and print each outcome as it comes.

    Args:
        photos: the photos, read one after the other.
        num_photos: how many there are, for the progress bar; None if nobody knows yet.
        settings: of the client.
        as_json: whether to print JSON lines instead of a table.
        annotate: a folder for copies with the faces drawn; None writes none.
        timings: whether to print on standard error where the time to the first outcome went.
        kept: the cluster of `rayface up` to use; None, and if that cannot be joined, takes the settings'.
        early: a driver process that loads already; None if there is none.

    Returns:
        How many photos were `detected`, `rejected` and `failed`, how many of the detected ones are `damaged`,
        and how many `faces` were found; empty if there was no photo.

    Raises:
        RayfaceError: no detector could be asked, or the kept cluster ended before the last photo's outcome.
    """
    out = Console(highlight=False, soft_wrap=True)
    messages = out if out.is_terminal else Console(stderr=True, highlight=False, soft_wrap=True)
    begun = time.monotonic()
    counts: Counter[str] = Counter()
    not_detected: list[tuple[str, Rejected | Failed]] = []
    copies = _AnnotatedCopies(annotate, settings) if annotate else None
    served_by: set[str] = set()
    start = Start() if timings else None
    ended: ClusterUnavailable | None = None
    async with await _connected(settings, messages, kept, early) as client, _telling_pauses(client, messages):
        if start is not None:
            start.is_ready = time.time()
        address = client.status().address
        used = kept if kept is not None and kept.address == address else None
        is_own = address != (kept.address if kept else settings.cluster.address)
        rest = photos if num_photos is not None else ()
        with _progress(messages, num_photos) as advance:
            if not as_json:
                out.print(Text(f"{'status':<9} {'faces':>5} {'score':>6} {'ms':>7}  image", style="bold"))
            try:
                async for photo, outcome in _following(client, photos, rest, used):
                    if start is not None and not counts:
                        # The client is closed if the kept cluster has ended; there is nothing to tell then.
                        with suppress(ClientNotUsable):
                            await start.tell(client, is_own=is_own, as_json=as_json)
                    counts[outcome.status] += 1
                    problem = await asyncio.to_thread(copies.draw, photo, outcome) if copies else ""
                    if as_json:
                        row = {"image": shown(photo.path), **outcome.as_dict()}
                        out.print(json.dumps(row), markup=False)
                    else:
                        out.print(_row(photo, outcome))
                    if problem:
                        messages.print(Text(problem, style="yellow"))
                    if isinstance(outcome, Rejected | Failed):
                        not_detected.append((shown(photo.path), outcome))
                    if isinstance(outcome, Detected):
                        counts["faces"] += len(outcome.faces)
                        counts["damaged"] += outcome.damaged is not None
                        served_by.add(outcome.stamp.served_by)
                    advance()
            except ClusterUnavailable as error:
                ended = error
    if not as_json:
        for name, outcome in not_detected:
            out.print(
                Text.assemble((f"{outcome.status} ({outcome.reason})", _STYLES[outcome.status]), f" {name}")
            )
            out.print(Text(f"    {outcome.detail}"))
        out.print(_summary(counts, time.monotonic() - begun, served_by))
    if ended is not None:
        raise ended
    return counts


async def _connected(
    settings: Settings, messages: Console, kept: KeptCluster | None, early: EarlyProcess | None
) -> FaceClient:
    """Connect, to the kept cluster if there is one; meanwhile load what prepares photos, by preparing one.

    For an embedded Ray, fetch the model meanwhile in this process too, so that a person sees it.
    """

    async def connect(settings: Settings) -> FaceClient:
        return await FaceClient(settings, _parts=partial(Parts, early=early)).__aenter__()

    async def connect_and_load(settings: Settings) -> FaceClient:
        connecting = asyncio.create_task(connect(settings))
        await asyncio.to_thread(golden.photos, 1, settings.detector.shapes[0])
        return await connecting

    def tell(sentence: str) -> None:
        if not models.is_kept(settings.detector.model) or messages.is_terminal:
            messages.print(Text(sentence, style="dim"))

    if kept is not None:
        try:
            return await connect_and_load(joining(settings, kept))
        except RayfaceError as error:
            line = f"The kept cluster cannot be used: {error} This run starts a Ray of its own."
            messages.print(Text(line, style="yellow"))
    if settings.cluster.address is not None:
        return await connect_and_load(settings)
    connecting = asyncio.create_task(connect(settings))
    try:
        await asyncio.to_thread(golden.photos, 1, settings.detector.shapes[0])
        await asyncio.to_thread(models.ready_model, settings.detector, tell)
    except ModelUnavailable as error:
        connecting.cancel()
        outcome = (await asyncio.gather(connecting, return_exceptions=True))[0]
        if isinstance(outcome, FaceClient):
            await outcome.close()
        raise DetectorNotReady(str(error), error.failure) from error
    return await connecting


async def _following(
    client: FaceClient, photos: Iterable[Photo], rest: Iterable[Photo], kept: KeptCluster | None
) -> AsyncIterator[tuple[Photo, Outcome]]:
    """Yield each photo with its outcome; only the photos in flight are kept in memory.

    Args:
        client: asked for the photos.
        photos: all of them.
        rest: those of `photos` that also fail if the kept cluster ends before they are read.
        kept: the cluster that the client joined; None if it is not a kept one.

    Raises:
        ClusterUnavailable: the kept cluster ended; every photo that was asked for has its outcome before.
    """
    asked: deque[Photo] = deque()

    def paths() -> Iterator[str]:
        for photo in photos:
            asked.append(photo)
            yield photo.path

    async with _closing_with(kept, client):
        try:
            async for outcome in client.stream(paths()):
                yield asked.popleft(), outcome
        except ClientNotUsable as error:
            if kept is None:
                raise
            why = error
        else:
            return
    for photo in chain(asked, rest):
        yield photo, Failed(stamp=Stamp("client"), reason=Failure.NO_CLUSTER, detail=_KEPT_ENDED)
    raise ClusterUnavailable(_KEPT_ENDED) from why


@asynccontextmanager
async def _closing_with(kept: KeptCluster | None, client: FaceClient) -> AsyncIterator[None]:
    """While the block runs, close the client when the kept cluster has ended.

    A scan waits for its cluster for as long as `client.max_pause_s`, but a kept cluster does not come back.
    """

    async def look() -> None:
        if kept is not None and kept.why_ended():
            await client.close()

    async with _repeating(look, "Watching the kept cluster"):
        yield


@asynccontextmanager
async def _telling_pauses(client: FaceClient, messages: Console) -> AsyncIterator[None]:
    """While the block runs, print when and why photos wait for a detector, and when they go on."""

    told = False

    async def look() -> None:
        nonlocal told
        why = client.paused
        if bool(why) is not told:
            line = f"Waiting for a detector: {why}" if why else "Going on."
            messages.print(Text(line, style="yellow"))
            told = bool(why)

    async with _repeating(look, "Telling of pauses"):
        yield


@asynccontextmanager
async def _repeating(look: Callable[[], Awaitable[None]], name: str) -> AsyncIterator[None]:
    """While the block runs, repeat a step."""
    log = rate_limited_log("rayface.command")
    watching = asyncio.create_task(repeat_async(look, name=name, log=log, every_s=_LOOK_EVERY_S))
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@contextmanager
def _progress(console: Console, num_photos: int | None) -> Iterator[Callable[[], None]]:
    if not console.is_terminal:
        yield lambda: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    begun = time.monotonic()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("photos", total=num_photos, rate="")
        num_done = 0

        def advance() -> None:
            nonlocal num_done
            num_done += 1
            rate = num_done / max(1e-6, time.monotonic() - begun)
            progress.update(task, advance=1, rate=f"{rate:.1f}/s")

        yield advance


def _row(photo: Photo, outcome: Outcome) -> Text:
    faces, score = "-", "-"
    if isinstance(outcome, Detected):
        faces = str(len(outcome.faces))
        score = f"{outcome.faces[0].score:.3f}" if outcome.faces else "-"
    spent = outcome.times.prepare_ms + outcome.times.queue_ms + outcome.times.run_ms
    rest = f" {faces:>5} {score:>6} {spent:>7.1f}  {shown(photo.path)}"
    row = Text.assemble((f"{outcome.status:<9}", _STYLES[outcome.status]), rest)
    if isinstance(outcome, Detected) and outcome.damaged:
        # Rounded down: 99.9 % is not all of it.
        row.append(
            f"  (damaged: {int(outcome.damaged.decoded_share * 100)} % of it searched)", style="yellow"
        )
    return row


def _summary(counts: Counter[str], seconds: float, served_by: set[str]) -> Text:
    num_photos = sum(counts[status] for status in _STYLES)
    return Text(
        f"{num_photos} photos in {seconds:.1f} s: {counts['detected']} detected ({counts['faces']} faces"
        + (f"; {counts['damaged']} damaged" if counts["damaged"] else "")
        + "), "
        f"{counts['rejected']} rejected, {counts['failed']} failed"
        + (f"; by {', '.join(sorted(served_by))}" if served_by else ""),
        style="bold",
    )


class _AnnotatedCopies:
    """Writes copies with the faces drawn into one folder, under names that do not collide."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder = folder
        self._limits = Limits.of(settings.detector)
        self._taken: set[Path] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"--annotate cannot use {folder}: {error.strerror}. Name a folder that you can write to."
            ) from error

    def draw(self, photo: Photo, outcome: Outcome) -> str:
        """Write the copy of one photo; returns what went wrong in a sentence, or ""."""
        if not isinstance(outcome, Detected):
            return ""
        try:
            target = self._name(photo)
            write_jpeg(target, draw_faces(read_upright(photo.path, self._limits), outcome.faces))
        except (OSError, ImageFault) as error:
            return f"There is no annotated copy of {shown(photo.path)}: {error}"
        return ""

    def _name(self, photo: Photo) -> Path:
        name = self._folder / photo.inside
        if name.suffix.lower() not in (".jpg", ".jpeg"):
            name = name.with_name(name.name + ".jpg")
        original, number = name, 1
        while name in self._taken or (name.exists() and name.samefile(photo.path)):
            number += 1
            name = original.with_stem(f"{original.stem}-{number}")
        self._taken.add(name)
        return name
