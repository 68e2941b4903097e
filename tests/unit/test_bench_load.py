"""The load generator and the windows of `rayface bench`, in virtual time, on a client that is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from actors.faces import Detected, Failed, Failure, Health, Outcome, Priority, Rejected, Rejection, Stamp
from actors.images import ImageSource
from cluster.bench.load import Answered, Calls, Load, LoadGenerator
from cluster.bench.measure import Counters, Measured, Plan, measure
from cluster.bench.stages import StageTotals
from cluster.bench.travel import Travel
from cluster.bench.usage import Usage
from cluster.bench.windows import Window, are_steady, percentile
from cluster.errors import ClientNotUsable
from tests.unit.fake_cluster import detected, failed, health
from tests.virtual_time import run


class Client:
    """Answers each call after so many seconds, which may change with time; counts what is under way."""

    def __init__(self, takes_s: Callable[[float], float], outcome: Outcome | None = None) -> None:
        self.takes_s = takes_s
        self.outcome = outcome or detected(1)
        self.under_way = self.most_under_way = 0
        self.asked: list[tuple[int, Priority | str, float | None]] = []
        self.closed_at = float("inf")

    async def detect(
        self,
        images: Sequence[ImageSource],
        *,
        priority: Priority | str = Priority.INTERACTIVE,
        deadline_s: float | None = None,
    ) -> list[Outcome]:
        now = asyncio.get_running_loop().time()
        if now >= self.closed_at:
            raise ClientNotUsable("closed")
        self.asked.append((len(images), priority, deadline_s))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(self.takes_s(now))
        finally:
            self.under_way -= 1
        return [self.outcome] * len(images)


def answers(client: Client, load: Load, calls: Calls, seconds: float) -> list[Answered]:
    """What was answered within so many seconds of load."""

    async def story() -> list[Answered]:
        found: list[Answered] = []
        task = asyncio.create_task(LoadGenerator(client, [b"1", b"2"], load, calls, found.append).run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found

    return run(story())


def measured(client: Client, load: Load, plan: Plan, *healths: Health) -> tuple[Measured, list[Window]]:
    """Measure a scripted client; each reading of the counters takes the next health."""
    left, told = list(healths), list[Window]()

    async def read() -> Counters:
        known = {"FaceDetector": left.pop(0) if len(left) > 1 else left[0]} if left else {}
        at = asyncio.get_running_loop().time()
        return Counters(known, Usage(at, {}, 0.0, {}), StageTotals({}, 0, 0), Travel())

    calls = Calls(images_per_call=2)
    return run(measure(client, [b"1"], load, calls, plan, read, told.append)), told


def test_so_many_calls_are_outstanding_at_all_times() -> None:
    client = Client(lambda now: 0.1)
    calls = Calls(images_per_call=3, priority=Priority.BULK, deadline_s=7.0)
    found = answers(client, Load(concurrency=4), calls, 10.05)
    assert client.most_under_way == 4
    assert len(found) == 400
    assert set(client.asked) == {(3, Priority.BULK, 7.0)}
    assert client.under_way == 0, "calls under way are cancelled with the load"


def test_a_rate_counts_images_and_does_not_wait_for_answers() -> None:
    client = Client(lambda now: 3.0)
    found = answers(client, Load(rate=20.0), Calls(images_per_call=2), 10.05)
    assert len(client.asked) == 101
    assert client.most_under_way == pytest.approx(30, abs=1)
    assert {round(each.ended - each.begun, 3) for each in found} == {3.0}


def test_latency_counts_from_the_moment_at_which_a_call_should_have_begun() -> None:
    """No coordinated omission: a stall of the program itself is part of what callers wait."""
    client = Client(lambda now: 0.01)

    async def story() -> list[float]:
        found: list[Answered] = []
        load = Load(rate=10.0)
        task = asyncio.create_task(LoadGenerator(client, [b"1"], load, Calls(), found.append).run())
        await asyncio.sleep(1.05)
        # The whole loop stands still for a second, as with a blocking call.
        loop = asyncio.get_running_loop()
        vars(loop)["_now"] += 1.0
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return [each.ended - each.begun for each in found]

    latencies = run(story())
    assert len(latencies) >= 21, "calls that should have begun meanwhile are made up for"
    assert max(latencies) == pytest.approx(0.96, abs=0.05)
    assert sum(each > 0.1 for each in latencies) >= 8


def test_it_ends_when_three_windows_agree() -> None:
    """The calls of the first ten seconds are slower, so the windows of that time do not count."""
    client = Client(lambda now: 1.0 if now < 10 else 0.1)
    found, windows = measured(client, Load(concurrency=2), Plan(1.0, 4.0, 20))
    assert found.is_steady
    assert 5 <= found.num_windows == len(windows) < 10
    assert found.window.images_per_s == pytest.approx(40.0, rel=0.1)
    assert percentile(found.window.latencies_ms, 50) == pytest.approx(100, abs=1)
    assert found.window.seconds == pytest.approx(12.0, abs=0.1)


def test_what_never_becomes_steady_ends_and_says_so() -> None:
    found, windows = measured(Client(lambda now: 0.1 + now / 10), Load(concurrency=2), Plan(0.0, 4.0, 5))
    assert not found.is_steady
    assert len(windows) == 5


def test_an_overload_shows_as_calls_without_an_answer() -> None:
    found, _ = measured(Client(lambda now: now + 1), Load(rate=20.0), Plan(0.0, 2.0, 4))
    assert found.grew > 0
    assert found.num_outstanding >= found.grew


def test_no_answer_at_all_is_no_division_by_zero() -> None:
    found, _ = measured(Client(lambda now: 1e6), Load(concurrency=1), Plan(0.0, 1.0, 3))
    assert not found.is_steady
    assert found.window.images_per_s == 0


def test_calls_that_hang_end_the_measurement_and_so_do_detectors_that_are_gone() -> None:
    hung, _ = measured(Client(lambda now: 1e6), Load(concurrency=1), Plan(0.0, 1.0, 50), health())
    assert hung.is_in_vain
    assert not hung.is_gone
    assert hung.num_windows == 3
    ended = Client(lambda now: 0.1 if now < 1 else 1e6)
    gone, _ = measured(ended, Load(concurrency=1), Plan(0.0, 2.0, 50))
    assert gone.is_gone
    assert gone.is_in_vain
    assert gone.num_windows == 2


def test_rejected_images_alone_end_the_measurement() -> None:
    stamp = Stamp("client")
    client = Client(lambda now: 0.1, Rejected(stamp=stamp, reason=Rejection.UNREADABLE, detail="none"))
    found, _ = measured(client, Load(concurrency=1), Plan(0.0, 1.0, 50), health())
    assert found.is_in_vain
    assert found.num_windows == 1


def test_the_calls_that_were_due_are_counted() -> None:
    found, _ = measured(Client(lambda now: 0.038), Load(rate=0.5), Plan(1.0, 10.0, 3), health())
    assert found.num_due == len(found.window.latencies_ms) == 7
    assert not found.is_in_vain


def test_failures_are_counted_by_kind_and_reason() -> None:
    client = Client(lambda now: 0.1, failed(Failure.BUSY))
    found, _ = measured(client, Load(concurrency=1), Plan(0.0, 1.0, 3))
    assert found.window.num("failed") == found.window.num_images > 0
    assert set(found.window.outcomes) == {("failed", "busy")}
    assert found.window.details == {("failed", "busy"): "busy it was"}
    assert found.window.images_per_s == 0, "a failed image is no image searched"


def test_a_client_that_cannot_be_asked_ends_the_bench() -> None:
    client = Client(lambda now: 0.1)
    client.closed_at = 2.5
    with pytest.raises(ClientNotUsable):
        measured(client, Load(concurrency=2), Plan(0.0, 1.0, 10))


def test_the_device_is_judged_over_the_windows_that_count() -> None:
    """Its own clock counts: a health that comes late changes no share."""
    found, _ = measured(
        Client(lambda now: 0.1),
        Load(concurrency=1),
        Plan(0.0, 1.0, 3),
        health(busy_s=10.0, uptime_s=100.0, num_runs=5, num_images_run=9, num_slots=10, num_lanes=2),
        health(busy_s=0.0, uptime_s=0.0, num_lanes=2),
        health(busy_s=0.0, uptime_s=0.0, num_lanes=2),
        health(busy_s=13.0, uptime_s=103.0, num_runs=7, num_images_run=15, num_slots=18, num_lanes=2),
    )
    assert found.device.busy == pytest.approx(0.5)
    assert found.device.fill == pytest.approx(6 / 8)
    assert found.device.mean_batch == pytest.approx(3.0)
    assert found.device.num_restarted == 0


def test_a_detector_that_started_again_is_left_out_and_told() -> None:
    found, _ = measured(
        Client(lambda now: 0.1),
        Load(concurrency=1),
        Plan(0.0, 1.0, 3),
        health(busy_s=10.0, uptime_s=100.0),
        health(busy_s=1.0, uptime_s=3.0, stamp=Stamp("FaceDetector", "fake@0", "life-2")),
    )
    assert found.device.busy is None
    assert found.device.num_restarted == 1


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(each) for each in range(1, 101)]
    assert [percentile(values, each) for each in (50, 90, 95, 99, 100)] == [50, 90, 95, 99, 100]
    assert percentile([7.0], 99) == 7
    assert percentile([], 50) == 0


def test_three_windows_agree_in_both_figures() -> None:
    def window(num: int, latency_ms: float) -> Window:
        done = Window(0.0, 10.0)
        for _ in range(num):
            done.add(Answered(0.0, latency_ms / 1000, [detected(1)]))
        return done

    assert are_steady([window(1, 900), window(100, 10), window(105, 10), window(98, 10.5)])
    assert not are_steady([window(100, 10), window(100, 10)])
    assert not are_steady([window(100, 10), window(100, 10), window(130, 10)])
    assert not are_steady([window(100, 10), window(100, 10), window(100, 13)])
    assert not are_steady([window(0, 0), window(0, 0), window(0, 0)])


def test_the_fallbacks_images_are_counted() -> None:
    window = Window(0.0, 1.0)
    by_cpu = Detected(stamp=Stamp("fallback on CPU", fallback="circuit open"), faces=(), width=1, height=1)
    lost = Failed(stamp=Stamp("client"), reason=Failure.NO_CLUSTER, detail="away")
    window.add(Answered(0.0, 0.5, [by_cpu, lost, detected(1)]))
    assert window.fallback == {"circuit open": 1}
    assert window.images_per_s == 2
    assert window.served_by.total() == 3
