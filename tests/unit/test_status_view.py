"""What `rayface status` shows: figures between two looks, what is away, and who asks."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console, RenderableType

from actors.faces import BucketTiming, Health, State
from actors.models import CATALOGUE
from actors.settings import DetectorSettings
from cluster.cli.status_view import StatusView, clients, rates
from cluster.client.detector_pool import DetectorPool
from cluster.client.registry import ClientEntry
from cluster.connection.cluster_api import Node
from cluster.errors import ClusterUnavailable
from cluster.settings import CircuitSettings
from tests.unit.fake_cluster import STAMP, FakeCluster, health
from tests.virtual_time import run

_NODE = Node("0" * 56, "10.0.0.2", "gpu", {"directml": 1.0}, {})


def _cluster() -> FakeCluster:
    made = FakeCluster()
    made.node_list = [_NODE]
    return made


def _text(page: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(page)
    return out.getvalue()


def _looked(cluster: FakeCluster, num_looks: int = 1) -> tuple[dict[str, Any], str]:
    async def story() -> tuple[dict[str, Any], str]:
        pool = DetectorPool(cluster, CircuitSettings(), only_look=True)
        view = StatusView(cluster, pool)
        for _ in range(num_looks):
            what, page = await view.look()
        return what, _text(page)

    return run(story())


def _after(before: Health, **changes: Any) -> Health:
    return replace(before, **changes)


def test_figures_are_of_the_time_between_two_looks() -> None:
    before = health(uptime_s=100.0, num_images_run=1000, num_slots=2000, busy_s=50.0, num_lanes=2)
    now = _after(before, uptime_s=110.0, num_images_run=1080, num_slots=2100, busy_s=60.0)
    assert rates(before, now) == {"images_per_s": 8.0, "busy": 0.5, "fill": 0.8}
    assert rates(None, now) == {"images_per_s": 9.82, "busy": 0.273, "fill": 0.514}


def test_another_process_is_not_compared_with_the_one_before() -> None:
    before = health(uptime_s=100.0, num_images_run=1000)
    now = health(uptime_s=10.0, num_images_run=20, stamp=replace(STAMP, incarnation="life-2"))
    assert rates(before, now)["images_per_s"] == 2.0


def test_a_device_that_did_nothing_has_no_fill() -> None:
    assert rates(None, health(uptime_s=10.0))["fill"] is None
    assert rates(None, health())["images_per_s"] is None


def test_all_is_well() -> None:
    what, page = _looked(_cluster())
    assert what["well"]
    assert what["nodes"][0]["name"] == "gpu"
    for said in ("FaceDetector", "ready", "CPUExecutionProvider", "1 directml", "gpu (10.0.0.2)"):
        assert said in page


@pytest.mark.parametrize(
    "changes",
    [
        {"state": State.FAULTY, "detail": "The device gives zeros."},
        {"state": State.STARTING, "detail": "The model is fetched."},
    ],
)
def test_what_is_not_ready_is_not_well_and_says_why(changes: dict[str, Any]) -> None:
    cluster = _cluster()
    cluster.healths["FaceDetector"] = health(**changes)
    what, page = _looked(cluster)
    assert not what["well"]
    assert what["detectors"][0]["detail"] == changes["detail"]
    assert changes["detail"] in page


def test_one_that_does_not_answer_is_away_with_its_last_figures() -> None:
    """It was heard once; then it is silent."""
    cluster = _cluster()

    async def story() -> tuple[dict[str, Any], str]:
        view = StatusView(cluster, DetectorPool(cluster, CircuitSettings(), only_look=True))
        await view.look()
        cluster.silent.add("FaceDetector")
        what, page = await view.look()
        return what, _text(page)

    what, page = run(story())
    (row,) = what["detectors"]
    assert (row["state"], what["well"]) == ("away", False)
    assert row["device"] == "cpu:0"
    assert row["detail"]
    assert "away" in page


def test_the_batch_sizes_are_shown_with_their_age() -> None:
    """The size used now, the time of each size, and how long ago it was measured; as JSON all of each."""
    cluster = _cluster()
    buckets = (BucketTiming(1, 640, 640, 2.5, 4, 700.0), BucketTiming(16, 640, 640, 10.0, 90, 12.0, True))
    cluster.healths["FaceDetector"] = health(buckets=buckets, shapes=((640, 640), (480, 640)))
    what, page = _looked(cluster)
    (row,) = (line for line in page.splitlines() if "640 x 640" in line)
    assert " ".join(row.split()) == "FaceDetector 640 x 640 16 1: 2.5, 16: 10.0 94 12 s ago"
    assert "480 x 640" not in page, "nothing is known of it"
    told = what["detectors"][0]["health"]["buckets"][1]
    assert (told["num_runs"], told["age_s"], told["is_used"]) == (90, 12.0, True)


def test_how_the_last_process_ended_is_said() -> None:
    cluster = _cluster()
    cluster.healths["FaceDetector"] = health(last_words="hung: 12 s on 8 images")
    assert "hung: 12 s on 8 images" in _looked(cluster)[1]


def test_without_a_cluster_it_is_an_error_and_no_empty_page() -> None:
    cluster = _cluster()
    cluster.is_away = True
    with pytest.raises(ClusterUnavailable, match="does not say how it is"):
        _looked(cluster)


def test_a_client_is_shown_with_its_circuits_and_what_its_cpu_did() -> None:
    detectors = [
        {
            "name": "FaceDetector",
            "circuit": "open",
            "detail": "It has not been heard for 31 s.",
            "num_calls": 12,
            "num_failed": 9,
            "num_opened": 1,
        }
    ]
    status = {
        "detectors": detectors,
        "fallback": {"detector_lost": 5},
        "outcomes": {"detected": 95, "failed": 5},
        "why_not": "",
        "paused": "",
    }
    page = _text(clients([ClientEntry("photos-1", 1.0, status)]))
    for said in ("photos-1", "100", "5 (5.0%)", "open", "9/12 failed", "It has not been heard for 31 s."):
        assert said in page
    away = {**status, "detectors": [], "outcomes": {}, "fallback": {}, "why_not": "The head is away."}
    assert "The head is away." in _text(clients([ClientEntry("photos-2", 1.0, away)]))


def test_a_detector_that_was_placed_with_other_settings_says_so() -> None:
    """Those that travel with each call are not named."""
    cluster = _cluster()
    placed = DetectorSettings(model="yunet", num_lanes=2, max_faces=1)
    stamp = replace(STAMP, model=f"yunet@{CATALOGUE['yunet'].sha256}")
    cluster.healths["FaceDetector"] = health(settings=placed.model_dump(mode="json"), stamp=stamp)

    async def story() -> tuple[dict[str, Any], str]:
        pool = DetectorPool(cluster, CircuitSettings(), only_look=True)
        what, page = await StatusView(cluster, pool, DetectorSettings()).look()
        return what, _text(page)

    what, page = run(story())
    assert what["detectors"][0]["other_settings"] == [
        "detector.model = yunet, and detector.model = centerface is wanted",
        "detector.num_lanes = 2 there and None here",
    ]
    assert "FaceDetector: it was placed with detector.model = yunet" in page
