"""`rayface detect`: reads photos, prints a table or JSON lines, and shows people a progress bar."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import chain
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from actors import golden, models
from actors.errors import ModelUnavailable
from actors.faces import Failed, Failure, Outcome, Stamp
from cluster.background import repeat_async
from cluster.cli.annotated_copies import AnnotatedCopies
from cluster.cli.detect_output import Output
from cluster.cli.folder_walk import NotLookedAt, Photo
from cluster.cli.kept_cluster import joining
from cluster.cli.photo_paths import why_unreadable
from cluster.cli.timings import Start
from cluster.client.face_client import FaceClient
from cluster.client.parts import Parts
from cluster.connection.early_process import EarlyProcess
from cluster.errors import (
    ClientNotUsable,
    ClusterUnavailable,
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


def detect(
    names: Iterable[Photo | NotLookedAt],
    num_names: int | None,
    settings: Settings,
    *,
    as_json: bool,
    annotate: Path | None,
    timings: bool = False,
    find_kept: Callable[[], KeptCluster | None] = lambda: None,
    early: EarlyProcess | None = None,
) -> Counter[str]:
    """Find the faces in every photo, and print each outcome as it comes.

    Names are checked first, until one can be looked at. So nothing is started or joined in vain.

    Args:
        names: the photos, read one after the other, and what cannot be looked at.
        num_names: how many there are, for the progress bar; None if nobody knows yet.
        settings: of the client.
        as_json: whether to print JSON lines instead of a table.
        annotate: a folder for copies with the faces drawn; None writes none.
        timings: whether to print on standard error where the time to the first outcome went.
        find_kept: finds the cluster of `rayface up` to use. Without one, and if it cannot be joined, the
            settings say which cluster.
        early: a driver process that loads already; None if there is none.

    Returns:
        `Output.counts`; empty if there was no name.

    Raises:
        RayfaceError: no detector could be asked, or the kept cluster ended before the last photo's outcome.
    """
    begun = time.monotonic()
    output = Output(as_json=as_json)
    copies = AnnotatedCopies(annotate, settings) if annotate else None
    left = iter(names)
    first = _first_readable(left, output)
    if first is None:
        output.end(time.monotonic() - begun)
        return output.counts
    num_left = None if num_names is None else num_names - output.num_shown
    asked = chain([first], left)
    kept = find_kept()
    try:
        asyncio.run(
            _search(asked, num_left, settings, output, copies, timings=timings, kept=kept, early=early)
        )
    except ClusterUnavailable:
        output.end(time.monotonic() - begun)
        raise
    finally:
        if copies is not None:
            copies.close()
    output.end(time.monotonic() - begun)
    return output.counts


def _first_readable(names: Iterator[Photo | NotLookedAt], output: Output) -> Photo | None:
    """The first photo that can be read, or None; those before it get their outcomes here."""
    for asked in names:
        problem = asked if isinstance(asked, NotLookedAt) else why_unreadable(asked.path)
        if isinstance(asked, Photo) and problem is None:
            return asked
        if problem is not None:
            output.show(asked, problem.outcome)
    return None


async def _search(
    names: Iterable[Photo | NotLookedAt],
    num_names: int | None,
    settings: Settings,
    output: Output,
    copies: AnnotatedCopies | None,
    *,
    timings: bool,
    kept: KeptCluster | None,
    early: EarlyProcess | None,
) -> None:
    """Ask a detector for every photo; as for `detect`."""
    start = Start() if timings else None
    async with (
        await _connected(settings, output, kept, early) as client,
        _telling_pauses(client, output.tell),
    ):
        if start is not None:
            start.is_ready = time.time()
        address = client.status().address
        used = kept if kept is not None and kept.address == address else None
        is_own = address != (kept.address if kept else settings.cluster.address)
        rest = names if num_names is not None else ()
        with _progress(output, num_names) as advance:
            async for asked, outcome in _following(client, names, rest, used):
                if start is not None:
                    # The client is closed if the kept cluster has ended; there is nothing to tell then.
                    with suppress(ClientNotUsable):
                        await start.tell(client, is_own=is_own, as_json=output.is_json)
                    start = None
                problem = ""
                if copies is not None and isinstance(asked, Photo):
                    problem = await asyncio.to_thread(copies.draw, asked, outcome)
                output.show(asked, outcome)
                if problem:
                    output.tell_of_no_copy(problem)
                advance()


async def _connected(
    settings: Settings, output: Output, kept: KeptCluster | None, early: EarlyProcess | None
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
        if not models.is_kept(settings.detector.model) or output.messages.is_terminal:
            output.tell(sentence, "dim")

    if kept is not None:
        try:
            return await connect_and_load(joining(settings, kept))
        except RayfaceError as error:
            output.tell(f"The kept cluster cannot be used: {error} This run starts a Ray of its own.")
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
    client: FaceClient,
    names: Iterable[Photo | NotLookedAt],
    rest: Iterable[Photo | NotLookedAt],
    kept: KeptCluster | None,
) -> AsyncIterator[tuple[Photo | NotLookedAt, Outcome]]:
    """Yield each name with its outcome, in order; only those in flight are kept in memory.

    Args:
        client: asked for the photos.
        names: all of them.
        rest: those of `names` that also fail if the kept cluster ends before they are read.
        kept: the cluster that the client joined; None if it is not a kept one.

    Raises:
        ClusterUnavailable: the kept cluster ended; every name that was asked for has its outcome before.
    """
    under_way: deque[Photo | NotLookedAt] = deque()

    def images() -> Iterator[str | bytes]:
        for asked in names:
            under_way.append(asked)
            # The client answers an empty image at once, and in its turn. The row shows the known outcome.
            yield asked.path if isinstance(asked, Photo) else b""

    async with _closing_with(kept, client):
        try:
            async for outcome in client.stream(images()):
                asked = under_way.popleft()
                yield asked, outcome if isinstance(asked, Photo) else asked.outcome
        except ClientNotUsable as error:
            if kept is None:
                raise
            why = error
        else:
            return
    no_cluster = Failed(stamp=Stamp("client"), reason=Failure.NO_CLUSTER, detail=_KEPT_ENDED)
    for asked in chain(under_way, rest):
        yield asked, no_cluster if isinstance(asked, Photo) else asked.outcome
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
async def _telling_pauses(client: FaceClient, tell: Callable[[str], None]) -> AsyncIterator[None]:
    """While the block runs, print when and why photos wait for a detector, and when they go on."""

    told = False

    async def look() -> None:
        nonlocal told
        why = client.paused
        if bool(why) is not told:
            tell(f"Waiting for a detector: {why}" if why else "Going on.")
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
def _progress(output: Output, num_names: int | None) -> Iterator[Callable[[], None]]:
    if not output.has_bar:
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
    with Progress(*columns, console=output.messages, transient=True) as progress:
        task = progress.add_task("photos", total=num_names, rate="")
        num_done = 0

        def advance() -> None:
            nonlocal num_done
            num_done += 1
            rate = num_done / max(1e-6, time.monotonic() - begun)
            progress.update(task, advance=1, rate=f"{rate:.1f}/s")

        yield advance
