"""What a process finds of the one that died before it."""

from __future__ import annotations

import contextlib
import errno
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.flight_recorder import FlightRecorder


class Machine:
    """One device's record, and the processes that come and go."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "flight.json"
        self.now = 1000.0
        self._made: list[FlightRecorder] = []

    def process(self, context: str = "model on device") -> FlightRecorder:
        """The next process that opens the device."""
        self._made.append(FlightRecorder(self.path, context, 3600.0, lambda: self.now))
        return self._made[-1]

    def dies_running(self, *batches: list[str], process: FlightRecorder | None = None) -> None:
        """A process dies with these runs on the device: what it noted stays as it was."""
        dying = process or self.process()
        with contextlib.ExitStack() as runs:
            for batch in batches:
                runs.enter_context(dying.flight(batch))
            left = self.path.read_bytes()
        self.path.write_bytes(left)

    def close(self) -> None:
        """Close the files that the system closes when a process dies."""
        for recorder in self._made:
            recorder.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.close()


def test_after_a_peaceful_end_nobody_is_suspect(machine: Machine) -> None:
    """Each run was crossed out."""
    first = machine.process()
    with first.flight(["a", "b"]):
        pass
    first.close()
    assert machine.process().num_suspects == 0


def test_a_run_that_fails_is_crossed_out(machine: Machine) -> None:
    """It did not end the process."""
    with pytest.raises(RuntimeError), machine.process().flight(["a"]):
        raise RuntimeError
    assert not machine.process().is_suspect("a")


def test_what_was_on_the_device_is_suspect(machine: Machine) -> None:
    """All of it, in whatever run."""
    machine.dies_running(["a", "b"], ["c"])
    after = machine.process()
    assert [after.is_suspect(key) for key in "abcd"] == [True, True, True, False]
    assert after.num_quarantined == 0


def test_one_that_kills_alone_is_quarantined(machine: Machine) -> None:
    """Its neighbours, which survived alone, are cleared."""
    machine.dies_running(["a", "poison", "b"])
    second = machine.process()
    for key in ("a", "b"):
        with second.flight([key]):
            pass
    machine.dies_running(["poison"], process=second)
    third = machine.process()
    assert third.is_quarantined("poison")
    assert third.num_suspects == 0


def test_one_death_alone_is_no_proof(machine: Machine) -> None:
    """A process is killed for many reasons, and something is always on the device."""
    machine.dies_running(["a"])
    after = machine.process()
    assert after.is_suspect("a")
    assert not after.is_quarantined("a")


def test_two_suspects_at_once_prove_nothing(machine: Machine) -> None:
    """Either may have done it."""
    machine.dies_running(["a"], ["b"])
    machine.dies_running(["a"], ["b"])
    assert machine.process().num_quarantined == 0
    assert machine.process().num_suspects == 2


def test_a_suspect_among_others_is_not_cleared(machine: Machine) -> None:
    """Only alone it proves itself: what was beside it would be blamed as well."""
    machine.dies_running(["a", "b"])
    second = machine.process()
    with second.flight(["a"]), second.flight(["b"]):
        pass
    assert not second.is_suspect("a"), "the first of the two was alone when it began, and ended well"
    assert second.is_suspect("b")


def test_quarantine_ends(machine: Machine) -> None:
    """A driver may have been mended; then it is tried again like any other."""
    machine.dies_running(["a"])
    machine.dies_running(["a"])
    assert machine.process().is_quarantined("a")
    machine.now += 3601
    assert not machine.process().is_quarantined("a")


def test_suspicion_ends(machine: Machine) -> None:
    """Of an image that nobody sends again."""
    machine.dies_running(["a"])
    assert machine.process().num_suspects == 1
    machine.now += 3601
    assert machine.process().num_suspects == 0


def test_another_model_or_device_is_another_matter(machine: Machine) -> None:
    """What killed that one says nothing about this one."""
    machine.dies_running(["a"])
    assert machine.process("another").num_suspects == 0


def test_memory_and_last_words_reach_the_next(machine: Machine) -> None:
    """How much fits, and why the last one ended."""
    first = machine.process()
    first.limit_batch(8)
    first.say_last("the device was removed")
    second = machine.process()
    assert second.max_batch == 8
    assert second.last_words == "the device was removed"
    assert machine.process().last_words == "", "the second did not end itself"


@pytest.mark.parametrize(
    "left",
    [
        b'{"suspects": {"a": 1' + 400 * b"0" + b"}}",
        b'{"max_batch": "many"}',
        b'{"max_batch": 1e400}',
        b'{"flights": ' + b"[" * 100_000,
        b"",
        b"{",
        b"[1]",
        b'{"flights": 3}',
        b'{"nobody": "knows"}',
        b'{"suspects": {"a": "b"}}',
        b"\xff\xfe",
    ],
    ids=lambda left: repr(left[:40]),
)
def test_a_spoilt_record_is_no_record(machine: Machine, left: bytes) -> None:
    """It must never keep the detector from starting."""
    machine.path.write_bytes(left)
    assert machine.process().num_suspects == 0


def test_a_longer_line_below_is_not_read(machine: Machine) -> None:
    """Left when the process died between writing and cutting."""
    machine.dies_running(["a"])
    machine.path.write_bytes(machine.path.read_bytes() + b'"long-gone"]]}\n')
    assert machine.process().is_suspect("a")


def test_it_stays_small(machine: Machine) -> None:
    """However many were on the device."""
    machine.dies_running([str(number) for number in range(1000)])
    after = machine.process()
    assert after.num_suspects == 256
    assert len(json.loads(machine.path.read_text().splitlines()[0])["suspects"]) == 256


def test_a_full_disk_costs_no_answer(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is lost, the run is not."""

    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_, **__: Full())
        recorder = machine.process()
        with recorder.flight(["a"]):
            pass
        recorder.close()
    assert machine.process().num_suspects == 0


def test_a_missing_folder_costs_no_answer(tmp_path: Path) -> None:
    """The record is lost, the run is not."""
    recorder = FlightRecorder(tmp_path / "no" / "folder", "", 3600.0)
    with recorder.flight(["a"]):
        pass
    recorder.close()
