"""One measurement: load, warm-up, windows until they are steady, and the counters at both ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.faces import Health
from actors.images import ImageSource
from cluster.bench.device import DeviceUse, device_use
from cluster.bench.load import Calls, Detects, Load, LoadGenerator
from cluster.bench.stages import StageTotals
from cluster.bench.travel import Travel
from cluster.bench.usage import Spent, Usage, spent
from cluster.bench.windows import NUM_STEADY, Collector, Window, are_steady, is_in_vain, joined


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Attributes:
        warm_up_s: seconds of load before the first window; their answers are not counted.
        window_s: seconds of a window.
        max_windows: windows after which the measurement ends although it is not steady.
    """

    warm_up_s: float = 3.0
    window_s: float = 5.0
    max_windows: int = 10


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything that is counted elsewhere, at one moment.

    Attributes:
        healths: what each detector that answered says of itself, by name.
        usage: of this machine.
        stages: of this client.
        travel: how photos travel.
    """

    healths: Mapping[str, Health]
    usage: Usage
    stages: StageTotals
    travel: Travel


class ReadsCounters(Protocol):
    """Reads all counters."""

    def __call__(self) -> Awaitable[Counters]:
        """The counters now."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured under one load.

    Attributes:
        load: how much was asked.
        calls: what each call was.
        window: the last three windows as one.
        num_windows: how many windows there were in all.
        is_steady: whether those three agree.
        device: the devices meanwhile.
        spent: processor time and network meanwhile.
        stages: the client's stages meanwhile.
        travel: how photos travelled meanwhile.
        num_outstanding: calls without an answer at the end.
        grew: how many more calls were without an answer at the end than at the beginning.
        num_due: calls that should have begun meanwhile; None without a rate.
        is_in_vain: whether it ended early, because to measure on would tell nothing more.
        is_gone: whether no detector was heard at the end, and the last window found nothing.
    """

    load: Load
    calls: Calls
    window: Window
    num_windows: int
    is_steady: bool
    device: DeviceUse
    spent: Spent
    stages: StageTotals
    travel: Travel
    num_outstanding: int
    grew: int
    num_due: int | None = None
    is_in_vain: bool = False
    is_gone: bool = False


async def measure(
    client: Detects,
    images: Sequence[ImageSource],
    load: Load,
    calls: Calls,
    plan: Plan,
    read: ReadsCounters,
    tell: Callable[[Window], None] = lambda window: None,
) -> Measured:
    """Put one load on a client until the figures of three windows in a row agree, or it is in vain.

    Args:
        client: is asked; the clock is that of its event loop.
        images: are sent in turn.
        load: how much is asked.
        calls: what each call is.
        plan: how long to measure.
        read: reads the counters, at the end of each window.
        tell: is called with each window when it has ended.

    Raises:
        RayfaceError: the client cannot be asked any more.
    """
    now = asyncio.get_running_loop().time
    collector = Collector()
    generator = LoadGenerator(client, images, load, calls, collector.add)
    running = asyncio.create_task(generator.run())
    try:
        await _goes_on(running, plan.warm_up_s)
        collector.cut(begun := now())
        counted, outstanding = [await read()], [generator.num_outstanding]
        due, in_vain = [generator.num_due(begun)], False
        windows: list[Window] = []
        until = now()
        while len(windows) < plan.max_windows and not are_steady(windows) and not in_vain:
            # From the end of the window before: reading the counters does not make the windows longer.
            until = max(until + plan.window_s, now())
            await _goes_on(running, until - now())
            windows.append(collector.cut(now()))
            outstanding.append(generator.num_outstanding)
            due.append(generator.num_due(windows[-1].ended))
            counted.append(await read())
            tell(windows[-1])
            in_vain = is_in_vain(
                windows,
                len(images),
                is_heard=bool(counted[-1].healths),
                are_waiting=all(outstanding[-NUM_STEADY:]),
            )
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    last = windows[-NUM_STEADY:]
    first, final = counted[-len(last) - 1], counted[-1]
    return Measured(
        load=load,
        calls=calls,
        window=joined(last),
        num_windows=len(windows),
        is_steady=are_steady(windows),
        device=device_use(first.healths, final.healths),
        spent=spent(first.usage, final.usage),
        stages=final.stages.since(first.stages),
        travel=Travel.during(each.travel for each in counted[-len(last) :]),
        num_outstanding=outstanding[-1],
        grew=outstanding[-1] - outstanding[-len(last) - 1],
        num_due=due[-1] - due[-len(last) - 1] if load.rate is not None else None,
        is_in_vain=in_vain,
        is_gone=not final.healths and not last[-1].num("detected"),
    )


async def _goes_on(running: asyncio.Task[None], seconds: float) -> None:
    """Wait; if the load ends too early, raise at once what ended it."""
    await asyncio.wait([running], timeout=max(0.0, seconds))
    if running.done():
        try:
            await running
        except BaseExceptionGroup as group:
            # One of them says it all: every call meets the same closed client.
            raise group.exceptions[0] from group
