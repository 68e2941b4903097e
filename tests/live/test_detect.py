"""Real photos through a real Ray of one machine: faces, rejections, order, the plain actor, open ports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from actors.faces import Detected, Outcome, Rejected, State
from actors.golden import iou
from app.face_service import FaceService
from cluster import BlockingFaceClient, load_settings
from tests.live.conftest import HERE, command, ray_processes, rows
from tests.pixels import read_pixels

# Wide boxes drawn by eye, from photos/SOURCES.md; CenterFace misses the montage's smallest face, 18 x 23 px.
FACES = {
    "astronaut.jpg": [(180, 65, 272, 180)],
    "camera.jpg": [(190, 122, 258, 197)],
    "chelsea.jpg": [],
    "coffee.jpg": [],
    "grace_hopper.jpg": [(160, 130, 370, 320)],
    "montage_faces.jpg": [
        (180, 150, 390, 340),
        (732, 85, 824, 200),
        (1155, 85, 1260, 180),
        (1204, 372, 1250, 430),
        (76, 686, 150, 752),
        (273, 660, 301, 694),
        (421, 666, 463, 704),
    ],
    "rocket.jpg": [],
}


def boxes(outcome: Outcome) -> list[Any]:
    assert isinstance(outcome, Detected), outcome
    return [face.box for face in outcome.faces]


def test_the_faces_of_the_photos_are_found(client: BlockingFaceClient, photos: Path) -> None:
    """Each labelled face once, nothing else, landmarks inside their boxes; the size is the original's."""
    outcomes = client.detect([photos / name for name in FACES])
    for (name, expected), outcome in zip(FACES.items(), outcomes, strict=True):
        found = boxes(outcome)
        assert len(found) == len(expected), name
        for labelled in expected:
            assert max(iou(labelled, box) for box in found) > 0.4, (name, labelled)
        assert isinstance(outcome, Detected)
        height, width = read_pixels(photos / name).shape[:2]
        assert (outcome.width, outcome.height) == (width, height)
        for face in outcome.faces:
            x1, y1, x2, y2 = face.box
            assert all(x1 - 5 <= x <= x2 + 5 and y1 - 5 <= y <= y2 + 5 for x, y in face.landmarks)
            assert 0.5 <= face.score <= 1


def test_every_outcome_says_who_answered(client: BlockingFaceClient, photos: Path) -> None:
    """I2: each outcome names detector, provider, model with digest, incarnation and the time of each step."""
    (outcome,) = client.detect([photos / "astronaut.jpg"])
    health = client.health()
    assert outcome.stamp == health.stamp
    assert outcome.stamp.served_by == "FaceDetector on CPUExecutionProvider"
    assert outcome.stamp.model.startswith("centerface@09189deaaf86")
    assert str(health.pid) in outcome.stamp.incarnation
    assert outcome.times.prepare_ms > 0
    assert outcome.times.run_ms > 0
    assert (health.state, health.provider) == (State.READY, health.provider_requested)
    assert health.golden_age_s is not None
    assert health.pid != os.getpid()


def test_paths_bytes_and_pixels_are_the_same_photo(client: BlockingFaceClient, photos: Path) -> None:
    """A path, its text, the file's bytes and an array give the same faces."""
    path = photos / "grace_hopper.jpg"
    pixels = read_pixels(path)
    one, two, three, four = client.detect([path, str(path), path.read_bytes(), pixels])
    assert boxes(one) == boxes(two) == boxes(three)
    np.testing.assert_allclose(boxes(four), boxes(one), atol=1.0)


def test_bad_images_harm_nobody(client: BlockingFaceClient, photos: Path, tmp_path: Path) -> None:
    """I1, I3: each bad image gets its own reason in its own place; its neighbours are detected."""
    good = (photos / "astronaut.jpg").read_bytes()
    images: list[Any] = []
    for bad in (
        b"",
        b"a letter",
        good[: len(good) // 2],
        tmp_path / "missing.jpg",
        tmp_path,
        np.zeros((5, 5)),
    ):
        images += [bad, good]
    outcomes = client.detect(images)
    assert [str(each.reason) for each in outcomes[::2] if isinstance(each, Rejected)] == [
        "zero_sized",
        "not_an_image",
        "truncated",
        "unreadable",
        "unreadable",
        "unsupported",
    ]
    assert all(len(boxes(each)) == 1 for each in outcomes[1::2])


def test_a_stream_keeps_order_and_reads_no_further_than_it_must(
    client: BlockingFaceClient, photos: Path
) -> None:
    """I6: a few calls' images are read ahead, however long the stream."""
    names = ["astronaut.jpg", "chelsea.jpg", "camera.jpg"] * 40
    num_read = 0

    def source() -> Iterator[Path]:
        nonlocal num_read
        for name in names:
            num_read += 1
            yield photos / name

    for number, (name, outcome) in enumerate(zip(names, client.stream(source()), strict=True)):
        assert len(boxes(outcome)) == len(FACES[name])
        assert num_read - number <= 4 * 8 + 8 + 8 + 2


_PLAIN_DRIVER = """
import json, sys
import ray
ray.init(address=sys.argv[1], namespace="elsewhere", log_to_driver=False, logging_level="ERROR")
detector = ray.get_actor("FaceDetector", namespace="rayface")
image = open(sys.argv[2], "rb").read()
(outcome,) = ray.get(detector.detect.remote([image], priority="bulk", deadline_s=30.0))
print(json.dumps({"outcome": outcome.as_dict(), "state": ray.get(detector.check.remote()).state}))
"""


def _plain_driver(
    client: BlockingFaceClient, photo: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a driver that is not ours on this machine's embedded cluster, which has a loopback address."""
    return subprocess.run(
        [sys.executable, "-c", _PLAIN_DRIVER, client.status().address, str(photo)],
        cwd=HERE,
        env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_plain_actor_answers_any_driver(client: BlockingFaceClient, photos: Path) -> None:
    """The low-level interface of docs/python.md, from another namespace."""
    done = _plain_driver(client, photos / "astronaut.jpg")
    assert done.returncode == 0, done.stderr
    (said,) = rows(done.stdout)
    assert said["state"] == State.READY
    (ours,) = client.detect([photos / "astronaut.jpg"])
    np.testing.assert_allclose([face["box"] for face in said["outcome"]["faces"]], boxes(ours))


@pytest.mark.skipif(sys.platform != "linux", reason="lists sockets as Linux has them")
def test_nothing_listens_beyond_this_machine(client: BlockingFaceClient) -> None:
    """I7: an embedded cluster is for its own machine."""
    listening = [
        (process.name(), connection.laddr.ip.removeprefix("::ffff:"))
        for process in [psutil.Process(), *ray_processes(os.getpid())]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    assert {address for _, address in listening} <= {"127.0.0.1", "::1"}, listening


def test_nobody_gets_in_without_the_token(client: BlockingFaceClient, photos: Path) -> None:
    """I7: with another token the same driver is refused."""
    done = _plain_driver(client, photos / "astronaut.jpg", RAY_AUTH_TOKEN="0" * 64)
    assert done.returncode != 0
    assert "outcome" not in done.stdout
    assert "InvalidAuthToken" in done.stderr


def test_the_backend_asks_through_its_own_room(client: BlockingFaceClient, photos: Path) -> None:
    """`app` joins a running cluster, asks for one photo and a scan, and leaves the cluster as it was."""
    service = FaceService(load_settings(cluster={"address": client.status().address}))
    outcome = service.faces_of((photos / "astronaut.jpg").read_bytes())
    assert len(boxes(outcome)) == 1
    paths = [photos / name for name in FACES]
    assert {path.name: len(boxes(each)) for path, each in service.scan(paths)} == {
        name: len(found) for name, found in FACES.items()
    }
    service.close()
    assert client.health().state is State.READY


def test_the_command_joins_a_ray_that_runs(client: BlockingFaceClient, photos: Path) -> None:
    """`--address`: the cluster's detector answers, and stays when the command ends."""
    address = client.status().address
    done = command("detect", str(photos / "astronaut.jpg"), "--json", "--address", address)
    assert done.returncode == 0, done.stderr
    (row,) = rows(done.stdout)
    assert row["incarnation"] == client.health().stamp.incarnation
    assert len(boxes(client.detect([photos / "astronaut.jpg"])[0])) == 1
