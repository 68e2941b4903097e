"""Other backends: many, rude ones, one with other settings, and one with other code."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.faults.kind import FaultKind, Load
from tests.hosts.machines import HERE, eventually

_NUM_CLIENTS = 50
#: Each client's driver process takes seconds of the processor to start.
_MANY_S = 120.0
_BEGIN_WITHIN_S = 120.0
#: What travels has its fields in another order: the types, and what reads them by position.
_OTHER_ORDER = (
    ("actors/faces.py", "    width: int\n    height: int\n", "    height: int\n    width: int\n"),
    ("actors/images.py", "    width: int\n    height: int\n", "    height: int\n    width: int\n"),
    (
        "cluster/deployment/packed.py",
        "faces, width, height, share = rest",
        "faces, height, width, share = rest",
    ),
)
_PARTS = ("actors", "cluster", "tests", "configs")


def _rude(name: str, words: str) -> FaultKind:
    @contextmanager
    def plant(load: Load) -> Iterator[None]:
        file = load.site.device / f"{name}-{load.first}.jsonl"
        guest = load.site.run_beside(file, "tests.chaos.guests", (name,))
        try:
            eventually(lambda: "has an outcome" in file.with_suffix(".log").read_text(), _BEGIN_WITHIN_S)
            yield
        finally:
            _end(guest)

    return FaultKind(name, words, plant, lasts_s=30.0)


@contextmanager
def _fifty(load: Load) -> Iterator[None]:
    file = load.site.device / f"many-{load.first}.jsonl"
    numbers = (str(_NUM_CLIENTS), str(load.first))
    guest = load.site.run_beside(file, "tests.chaos.guests", ("many", *numbers), is_told=True)
    load.site.callers[file] = guest
    load.files.append(file)
    try:
        yield
    finally:
        assert guest.stdin is not None
        guest.stdin.close()


@contextmanager
def _other_settings(load: Load) -> Iterator[None]:
    """A second client wants another model than the cluster has; the first ones must not notice."""
    file = load.site.device / f"settings-{load.first}.jsonl"
    arguments = ("asks", str(load.first))
    wanted = {"RAYFACE_DETECTOR__MODEL": "yunet", "RAYFACE_DETECTOR__SCORE_THRESHOLD": "0.95"}
    guest = load.site.run_beside(file, "tests.chaos.guests", arguments, wanted)
    try:
        _wait_for_answer(load, file, guest)
        yield
        wrong = [row for row in load.site.answers(file) if row["status"] == "detected"]
        load.problems += [
            f"photo {row['number']}: another model answered than its client wanted" for row in wrong
        ]
    finally:
        _end(guest)


@contextmanager
def _other_code(load: Load) -> Iterator[None]:
    """A backend whose checkout has the fields of an answer in another order."""
    code = load.site.device / f"code-{load.first}"
    for part in _PARTS:
        shutil.copytree(HERE / part, code / part, ignore=shutil.ignore_patterns("__pycache__", "photos"))
    changed = 0
    for name, before, after in _OTHER_ORDER:
        text = (code / name).read_text()
        changed += before in text
        (code / name).write_text(text.replace(before, after))
    assert changed, "the code has changed; change it in another place"
    file = load.site.device / f"code-{load.first}.jsonl"
    arguments = ("asks", str(load.first))
    guest = load.site.run_beside(file, "tests.chaos.guests", arguments, code=code)
    try:
        _wait_for_answer(load, file, guest)
        yield
        load.problems += [
            f"photo {row['number']}: a wrong answer to a backend with other code"
            for row in load.site.answers(file)
            if row["status"] == "detected" and not row["right"]
        ]
    finally:
        _end(guest)
        shutil.rmtree(code)


def _wait_for_answer(load: Load, file: Path, guest: subprocess.Popen[bytes]) -> None:
    """Wait until it has an outcome or was refused: a guest that asked nothing would be no fault."""
    eventually(lambda: load.site.answers(file) or guest.poll() is not None, _BEGIN_WITHIN_S, load.site.said)


def _end(guest: subprocess.Popen[bytes]) -> None:
    if guest.poll() is None:
        guest.terminate()
        try:
            guest.wait(20)
        except subprocess.TimeoutExpired:
            guest.kill()
            guest.wait(10)


KINDS = (
    FaultKind("fifty-clients", f"{_NUM_CLIENTS} more clients", _fifty, _MANY_S),
    _rude("unread", "a backend reads none of its outcomes"),
    _rude("dropped", "a backend leaves every stream in the middle"),
    FaultKind("settings", "a second client wants another model", _other_settings, 12.0),
    FaultKind("code", "a backend whose code has the fields of an answer in another order", _other_code, 12.0),
)
