"""Each way in which a device breaks: who notices it, the outcome of every photo, and the recovery."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from actors.faces import Detected, Failed, Health, Outcome, State
from cluster import BlockingFaceClient, DetectorNotReady
from tests.chaos.device import notes, tell
from tests.chaos.photos import is_right, photo
from tests.hosts.machines import eventually

_NUMBERS = count(1)


@pytest.fixture(autouse=True)
def _well(client: BlockingFaceClient, device: Path) -> Iterator[None]:
    """Before each test, wait until the device has recovered from the last test's fault."""
    tell(device)
    eventually(lambda: _is_well(client), 120, lambda: str(client.status()))
    yield
    tell(device)


def _health(client: BlockingFaceClient) -> Health | None:
    try:
        return client.health()
    except DetectorNotReady:
        return None


def _is_well(client: BlockingFaceClient) -> bool:
    health = _health(client)
    return (
        health is not None
        and health.state is State.READY
        and all(each.circuit == "closed" for each in client.status().detectors)
    )


def _numbers(num: int) -> list[int]:
    return [next(_NUMBERS) for _ in range(num)]


def _ask(client: BlockingFaceClient, numbers: Sequence[int], deadline_s: float = 60.0) -> list[Outcome]:
    outcomes = client.detect([photo(number) for number in numbers], deadline_s=deadline_s)
    assert len(outcomes) == len(numbers)
    for number, outcome in zip(numbers, outcomes, strict=True):
        assert is_right(number, outcome) or not isinstance(outcome, Detected), (number, outcome)
    return outcomes


def _reasons(outcomes: Sequence[Outcome]) -> list[str]:
    return [str(each.reason) if isinstance(each, Failed) else each.status for each in outcomes]


def _lives(device: Path) -> int:
    return len({note["pid"] for note in notes(device)})


def _num_runs(device: Path, numbers: Sequence[int]) -> int:
    """How often these photos were on the device, in total."""
    wanted = set(numbers)
    runs = (note["numbers"] for note in notes(device) if note["event"] == "run")
    return sum(number in wanted for run in runs for number in run)


def test_a_poison_photo_among_64_costs_two_restarts_and_no_neighbour(
    client: BlockingFaceClient, device: Path
) -> None:
    """I3: 63 photos are answered, one fails as quarantined; when asked again, that one is not run again."""
    numbers = _numbers(64)
    tell(device, poison=[numbers[40]])
    before = _lives(device)
    outcomes = _ask(client, numbers)
    assert _reasons(outcomes) == ["detected" if n != numbers[40] else "quarantined" for n in numbers]
    assert _lives(device) - before <= 2
    again = _num_runs(device, [numbers[40]])
    assert _reasons(_ask(client, [numbers[40]])) == ["quarantined"]
    assert _num_runs(device, [numbers[40]]) == again == 2
    assert all(each.circuit == "closed" for each in client.status().detectors)


@pytest.mark.parametrize(("order", "words"), [("hang", "are allowed"), ("remove", "887A0005")])
def test_a_device_that_hangs_or_is_removed_gets_a_new_process(
    client: BlockingFaceClient, device: Path, order: str, words: str
) -> None:
    """Ray starts it again and repeats the call; the next process says why the last one ended."""
    before = client.health().pid
    tell(device, **{order: True})
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(_ask, client, _numbers(8))
        eventually(lambda: (h := _health(client)) is not None and h.pid != before, 60)
        tell(device)
        assert _reasons(asking.result()) == ["detected"] * 8
    health = client.health(wait_s=30)
    assert words in health.last_words
    assert health.pid != before


@pytest.mark.parametrize("garbage", ["zeros", "nan"])
def test_a_device_that_lies_is_never_shown_as_no_faces(
    client: BlockingFaceClient, device: Path, garbage: str
) -> None:
    """I1, I4: every photo fails with that reason; the circuit opens, and closes when the device is well."""
    assert _reasons(_ask(client, _numbers(4))) == ["detected"] * 4
    tell(device, garbage=garbage)
    for _ in range(3):
        assert _reasons(_ask(client, _numbers(16))) == ["device_lies"] * 16
    eventually(lambda: client.status().detectors[0].circuit != "closed", 10)
    health = client.health()
    assert health.state is State.FAULTY
    tell(device)
    eventually(lambda: _is_well(client), 90, lambda: str(client.status()))
    assert _reasons(_ask(client, _numbers(16))) == ["detected"] * 16


def test_a_device_without_memory_gets_smaller_batches(client: BlockingFaceClient, device: Path) -> None:
    """Only the detector notices the fault."""
    tell(device, max_batch=2)
    assert _reasons(_ask(client, _numbers(64))) == ["detected"] * 64
    health = client.health()
    assert health.max_batch is not None
    assert health.max_batch <= 2
    assert health.state is State.READY


def test_at_total_failure_no_photo_is_tried_again_and_again(
    client: BlockingFaceClient, device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """I6: a device that fails every photo (and finds the golden one); 1.1 runs a photo at most."""
    tell(device, fail=True)
    asked: list[int] = []
    until = time.monotonic() + 10
    while time.monotonic() < until:
        numbers = _numbers(64)
        asked += numbers
        assert set(_reasons(_ask(client, numbers))) == {"device_failed"}
    amplification = _num_runs(device, asked) / len(asked)
    with capsys.disabled():
        print(f"\ndevice fails every photo: {len(asked)} asked, {amplification:.3f} runs for each")
    assert amplification <= 1.1
    assert client.status().detectors[0].num_opened >= 1


def test_a_device_that_dies_of_every_photo_is_left_alone(
    client: BlockingFaceClient, device: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """I6: the circuit limits the most runs that Ray's own retries can cause."""
    asked: list[int] = []
    reasons: set[str] = set()
    until = time.monotonic() + 40
    while time.monotonic() < until:
        numbers = _numbers(16)
        tell(device, poison=[*asked[-2000:], *numbers])
        asked += numbers
        reasons |= set(_reasons(_ask(client, numbers, deadline_s=10.0)))
        time.sleep(0.05)
    amplification = _num_runs(device, asked) / len(asked)
    with capsys.disabled():
        print(
            f"\ndevice dies of every photo: {len(asked)} asked, {amplification:.3f} runs for each, "
            f"{sorted(reasons)}"
        )
    assert "detected" not in reasons
    assert amplification <= 1.1
