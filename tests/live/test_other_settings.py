"""Clients with other settings on one cluster: real Ray, and a detector that is replaced meanwhile."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors.faces import Detected, Failed, Failure
from cluster import BlockingFaceClient, DetectorNotReady, load_settings
from cluster.node import kept
from tests.live.conftest import command, rows


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A kept cluster of its own, by its address."""
    state = tmp_path_factory.mktemp("other-settings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(state))
        done = command("up")
        assert done.returncode == 0, done.stderr
        cluster = kept.read()
        assert cluster is not None
        yield cluster.address
        command("down")


def client(address: str, **detector: Any) -> BlockingFaceClient:
    return BlockingFaceClient(load_settings(cluster={"address": address}, detector=detector))


def num_faces(outcome: object) -> int:
    assert isinstance(outcome, Detected), outcome
    return len(outcome.faces)


def test_two_clients_have_their_own_scores_and_numbers_of_faces(address: str, photos: Path) -> None:
    """The detector was placed with the defaults; each call brings what its caller wants."""
    photo = photos / "montage_faces.jpg"
    with client(address) as usual, client(address, score_threshold=0.9, max_faces=1) as strict:
        both: list[list[int]] = [[], []]

        def ask(at: int, who: BlockingFaceClient) -> None:
            both[at] += [num_faces(each) for each in who.detect([photo] * 4)]

        threads = [threading.Thread(target=ask, args=each) for each in enumerate((usual, strict))]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
        assert both == [[7] * 4, [1] * 4]
        assert [num_faces(each) for each in usual.detect([photo], max_faces=3)] == [3]
        assert [num_faces(each) for each in usual.stream([photo], score_threshold=0.85)] < [7]
    done = command(
        "detect", str(photo), "--json", "--address", address, "--max-faces", "2", "--min-score", "0.3"
    )
    assert len(rows(done.stdout)[0]["faces"]) == 2


def test_a_client_with_other_tensors_is_refused_before_its_first_photo(address: str, photos: Path) -> None:
    """With exit code 3 in the command, and a sentence with both values."""
    with pytest.raises(DetectorNotReady, match=r"input_size = 640, and 320 is wanted.*place --replace"):
        client(address, input_size=320)
    other = {"RAYFACE_DETECTOR__INPUT_SIZE": "320"}
    photo = str(photos / "astronaut.jpg")
    begun = time.monotonic()
    done = command("detect", photo, "--json", "--address", address, variables=other)
    assert done.returncode == 3
    assert "RAYFACE_DETECTOR__INPUT_SIZE=640" in done.stderr
    assert time.monotonic() - begun < 30
    done = command(
        *("detect", photo, "--json", "--address", address),
        variables=other | {"RAYFACE_CLUSTER__OTHER_SETTINGS": "use"},
    )
    assert (done.returncode, len(rows(done.stdout)[0]["faces"])) == (0, 1)


class Load:
    """A client that asks again and again, in a thread, until it is stopped."""

    def __init__(self, address: str, photo: Path, how: str, other_settings: str) -> None:
        settings = load_settings(cluster={"address": address, "other_settings": other_settings})
        self.asked = 0
        self.counts: Counter[str] = Counter()
        self.details: set[str] = set()
        self.lives: set[str] = set()
        self._stop = threading.Event()
        self._client = BlockingFaceClient(settings)
        self._photo = photo
        self._thread = threading.Thread(target=self._ask if how == "detect" else self._scan)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(120)
        self._client.close()

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.asked += 1
            for outcome in self._client.detect([self._photo], deadline_s=60.0):
                self._count(outcome)

    def _scan(self) -> None:
        def photos() -> Iterator[Path]:
            while not self._stop.is_set():
                self.asked += 1
                yield self._photo

        for outcome in self._client.stream(photos()):
            self._count(outcome)

    def _count(self, outcome: Any) -> None:
        self.counts[str(outcome.reason) if isinstance(outcome, Failed) else outcome.status] += 1
        self.lives.add(outcome.stamp.incarnation)
        if isinstance(outcome, Failed):
            self.details.add(outcome.detail)


@pytest.mark.parametrize("changed", [{"NUM_LANES": "1"}, {"INPUT_SIZE": "320"}])
def test_a_detector_is_replaced_under_load_and_no_photo_is_lost(
    address: str, photos: Path, changed: dict[str, str]
) -> None:
    """A person and a scan ask all the time; also where photos must be made small anew for other tensors."""
    photo = photos / "grace_hopper.jpg"
    loads = [Load(address, photo, how, "use") for how in ("detect", "stream")]
    try:
        time.sleep(5.0)
        variables = {f"RAYFACE_DETECTOR__{name}": value for name, value in changed.items()}
        done = command("place", "--replace", "--address", address, variables=variables)
        assert done.returncode == 0, done.stderr
        for name, value in changed.items():
            assert f"detector.{name.lower()}: " in done.stdout
            assert f"{value} now" in done.stdout
        time.sleep(5.0)
    finally:
        for each in loads:
            each.end()
    for each in loads:
        assert each.counts == {"detected": each.asked}, each.details
        assert len(each.lives) == 2


def test_an_open_client_that_refuses_others_is_told_and_goes_on(address: str, photos: Path) -> None:
    """The detector has 320 pixels after the tests before; then it is placed anew with the defaults."""
    photo = photos / "astronaut.jpg"
    settings = load_settings(cluster={"address": address})
    with BlockingFaceClient(settings, wait=False) as made:
        until = time.monotonic() + 60
        while (outcome := made.detect([photo])[0]).status == "failed" and time.monotonic() < until:
            assert isinstance(outcome, Failed)
            if outcome.reason is Failure.OTHER_SETTINGS:
                break
            time.sleep(0.5)
        assert isinstance(outcome, Failed)
        assert "rayface place --replace" in outcome.detail
        assert command("place", "--replace", "--address", address).returncode == 0
        while made.detect([photo])[0].status == "failed" and time.monotonic() < until + 60:
            time.sleep(0.5)
        assert num_faces(made.detect([photo])[0]) == 1
