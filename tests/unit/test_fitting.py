"""A client asks only detectors that were placed with the model and the tensors that it wants, and says so."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from actors.call_settings import ModelChoice
from actors.faces import Failed, Failure, State
from actors.models import CATALOGUE
from actors.settings import OF_CALL, OF_CALLER, OF_MACHINE, OF_MODEL, OF_OPERATION, DetectorSettings
from cluster.client.face_client import FaceClient
from cluster.client.fitting import Fitting, in_operation
from cluster.errors import DetectorNotReady
from cluster.settings import load_settings
from tests.unit.clients import Cpus, client_on, inline_parts, photo, photos, seen
from tests.unit.fake_cluster import FakeCluster, detected, failed, health
from tests.virtual_time import run

OWN = DetectorSettings()


def placed(name: str = "FaceDetector", life: str = "life-1", **changes: Any) -> Any:
    """The health of a ready detector that was placed with these settings."""
    settings = OWN.model_copy(update=changes)
    entry = CATALOGUE[settings.model]
    known = health(name=name, shapes=settings.shapes, settings=settings.model_dump(mode="json"))
    stamp = known.stamp.__class__(f"{name} on a test", f"{entry.name}@{entry.sha256}", life)
    by = "front pid 7"
    return health(name=name, shapes=settings.shapes, settings=known.settings, stamp=stamp, placed_by=by)


def cluster_with(*healths: Any) -> FakeCluster:
    made = FakeCluster()
    made.healths = {each.name: each for each in healths}
    return made


def test_every_setting_of_a_detector_is_of_one_kind() -> None:
    """So that nobody adds one and forgets whether it changes answers."""
    kinds = [OF_MODEL, OF_CALL, OF_CALLER, OF_MACHINE, OF_OPERATION]
    assert sum(len(each) for each in kinds) == len(frozenset().union(*kinds))
    assert frozenset().union(*kinds) == set(DetectorSettings.model_fields)


def test_a_client_is_refused_by_a_detector_with_another_model() -> None:
    """The sentence names both values and both ways out; no photo was sent."""
    cluster = cluster_with(placed(model="yunet", input_size=320))

    async def story() -> None:
        with pytest.raises(DetectorNotReady) as refused:
            async with FaceClient(load_settings(), _parts=inline_parts(cluster)):
                pass
        said = str(refused.value)
        assert refused.value.failure is Failure.OTHER_SETTINGS
        assert "was placed by front pid 7 with" in said
        assert "detector.model = yunet, and detector.model = centerface is wanted" in said
        assert "detector.input_size = 320, and 640 is wanted" in said
        assert "RAYFACE_DETECTOR__MODEL=yunet RAYFACE_DETECTOR__INPUT_SIZE=320" in said
        assert "rayface place --replace" in said
        assert cluster.calls == []

    run(story())


def test_it_is_refused_before_the_detector_has_opened_its_model() -> None:
    """That may take minutes."""
    starting = placed(model="yunet")
    object.__setattr__(starting, "state", State.STARTING)

    async def story() -> None:
        with pytest.raises(DetectorNotReady, match="yunet"):
            async with FaceClient(load_settings(), _parts=inline_parts(cluster_with(starting))):
                pass

    run(story())


def test_an_open_client_whose_detector_was_replaced_gets_failures_and_goes_on_when_it_fits_again() -> None:
    """I1: typed failures, an open circuit with the reason; it closes by itself."""
    cluster = cluster_with(placed())

    async def story() -> None:
        async with client_on(cluster) as client:
            assert seen(await client.detect(photos(2))) == ["FaceDetector on a test"] * 2
            cluster.healths["FaceDetector"] = placed(life="life-2", input_size=320)
            await asyncio.sleep(3.0)
            num_calls = len(cluster.calls)
            outcomes = await client.detect(photos(2))
            assert seen(outcomes) == ["other_settings"] * 2
            assert all(isinstance(each, Failed) and "place --replace" in each.detail for each in outcomes)
            assert len(cluster.calls) == num_calls
            (asked,) = client.status().detectors
            assert (asked.circuit, asked.reason) == ("open", "other_settings")
            cluster.healths["FaceDetector"] = placed(life="life-3")
            await asyncio.sleep(10.0)
            assert seen(await client.detect(photos(2))) == ["FaceDetector on a test"] * 2

    run(story())


def test_probes_do_not_close_the_circuit_of_a_detector_that_does_not_fit() -> None:
    """It finds the golden photo, and is well."""
    cluster = cluster_with(placed(model="yunet"))

    async def story() -> None:
        async with client_on(cluster) as client:
            await asyncio.sleep(120.0)
            assert cluster.probes["FaceDetector"] > 2
            assert seen(await client.detect([photo(1)])) == ["other_settings"]

    run(story())


def test_of_several_detectors_those_that_fit_are_asked() -> None:
    cluster = cluster_with(placed(model="yunet"), placed("FaceDetector-2"))

    async def story() -> None:
        async with client_on(cluster) as client:
            await client.detect(photos(4))
            by_name = {each.name: each for each in client.status().detectors}
            assert by_name["FaceDetector"].reason == "other_settings"
            assert by_name["FaceDetector-2"].circuit == "closed"
            assert sum(cluster.calls) == 4

    run(story())


def test_a_call_names_the_model_that_it_wants() -> None:
    """So a detector that was replaced a moment ago refuses it, before this client has heard of that."""
    cluster = cluster_with(placed())

    async def story() -> None:
        async with client_on(cluster, detector={"score_threshold": 0.7}) as client:
            await client.detect([photo(1)])
            await client.detect([photo(1)], score_threshold=0.2, max_faces=3)
        mine, other = cluster.settings
        assert mine is not None
        assert other is not None
        wanted = ModelChoice("centerface", "", 640, CATALOGUE["centerface"].sha256)
        assert (mine.score_threshold, mine.max_faces, mine.wanted) == (0.7, 1000, wanted)
        assert (other.score_threshold, other.max_faces, other.wanted) == (0.2, 3, wanted)

    run(story())


def test_a_client_may_take_a_detector_as_it_is() -> None:
    """Its photos are made for that detector's tensors, and its CPU answers with that model too."""
    cluster, cpus = cluster_with(placed(model="yunet", input_size=320)), Cpus()

    async def story() -> None:
        sections: dict[str, Any] = {
            "cluster": {"other_settings": "use"},
            "fallback": {"policy": "when_open", "max_threads": 1},
        }
        async with client_on(cluster, cpus=cpus, **sections) as client:
            await client.detect([photo(1)], score_threshold=0.3)
            assert cluster.settings[-1] is not None
            assert cluster.settings[-1].wanted == ModelChoice("yunet", "", 320, CATALOGUE["yunet"].sha256)
            cluster.silent.add("FaceDetector")
            await asyncio.sleep(60.0)
            assert seen(await client.detect([photo(1)], score_threshold=0.3)) == ["fallback on CPU"]
        assert (cpus.settings[0].model, cpus.settings[0].input_size) == ("yunet", 320)
        assert cpus.asked[0].score_threshold == 0.3

    run(story())


def test_the_cpu_answers_with_the_clients_model_where_it_refuses_the_detectors() -> None:
    """I5: the person gets the model that was asked for, and the reason is stamped on the outcome."""
    cluster, cpus = cluster_with(placed(model="yunet", input_size=320)), Cpus()

    async def story() -> None:
        fallback = {"policy": "when_open"}
        async with client_on(cluster, cpus=cpus, fallback=fallback) as client:
            (outcome,) = await client.detect([photo(1)])
            assert outcome.stamp.fallback == "circuit open: other_settings"
        assert (cpus.settings[0].model, cpus.settings[0].input_size) == ("centerface", 640)

    run(story())


def test_settings_that_change_no_answer_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    there = placed(batch_sizes=(1, 2), max_faces=1, score_threshold=0.9)
    with caplog.at_level(logging.INFO):
        fitting = Fitting(load_settings(), logging.getLogger("test"))
        for _ in range(3):
            fitting.hear([there])
            assert fitting.fault_of(there) is None
            fitting.tell(there)
    assert [each.getMessage() for each in caplog.records] == [
        "FaceDetector was placed with other settings, which change no answer: "
        "detector.batch_sizes = [1, 2] there and [1, 2, 4, 8, 16, 32] here."
    ]
    assert in_operation(there.settings, OWN) != []
    assert in_operation(placed().settings, OWN) == []


def test_a_photo_is_made_small_again_for_a_detector_that_was_placed_anew() -> None:
    """Where any detector is taken: the one that was heard is another one when the photo comes."""
    cluster = cluster_with(placed())
    shapes: list[Any] = []

    def script(images: Any) -> Any:
        shapes.extend(each.shape for each in images)
        if cluster.healths["FaceDetector"].shapes == OWN.shapes and len(cluster.calls) == 1:
            cluster.healths["FaceDetector"] = placed(life="life-2", input_size=320)
            return [failed(Failure.OTHER_SETTINGS)]
        return [detected(each.width) for each in images]

    async def story() -> None:
        cluster.script = script
        async with client_on(cluster, cluster={"other_settings": "use"}) as client:
            assert seen(await client.detect([photo(300)])) == ["FaceDetector on a test"]
            assert [max(each) for each in shapes] == [640, 320]
            (asked,) = client.status().detectors
            assert asked.circuit == "closed"

    run(story())


def test_a_call_that_meets_a_replaced_detector_is_told_the_way_out() -> None:
    """Before the client has heard of it; the circuit is open at once."""
    cluster = cluster_with(placed())

    def script(images: Any) -> Any:
        cluster.healths["FaceDetector"] = placed(life="life-2", model="yunet")
        return [failed(Failure.OTHER_SETTINGS) for _ in images]

    async def story() -> None:
        cluster.script = script
        async with client_on(cluster) as client:
            (outcome,) = await client.detect([photo(1)])
            assert isinstance(outcome, Failed)
            assert outcome.reason is Failure.OTHER_SETTINGS
            assert "place --replace" in outcome.detail
            (asked,) = client.status().detectors
            assert (asked.circuit, asked.reason) == ("open", "other_settings")

    run(story())
