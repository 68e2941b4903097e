"""The record of the cluster of `rayface up`: who may have written it, and whether it is still true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cluster.cli.kept_cluster import find_kept, find_suitable, joining
from cluster.errors import ConfigurationError
from cluster.node import kept
from cluster.node.kept import KeptCluster, KeptProcess
from cluster.node.kept_settings import settings_of
from cluster.settings import Settings, load_settings

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(kept, "folder", lambda: tmp_path / "up")
    return tmp_path / "up"


def this_process(name: str) -> KeptProcess:
    entry = KeptProcess.of(psutil.Process())
    assert entry is not None
    return replace(entry, name=name)


def cluster(settings: Settings | None = None) -> KeptCluster:
    """A cluster whose processes are all alive: they are this one."""
    return KeptCluster(
        address="127.0.0.1:40001",
        since=1_800_000_000.0,
        idle_minutes=240.0,
        temp_dir="",
        processes=tuple(this_process(name) for name in ("python", "gcs_server", "raylet")),
        settings=settings_of(settings or load_settings()),
    )


def test_a_record_is_read_as_it_was_written(folder: Path) -> None:
    assert find_kept() == (None, "")
    kept.write(cluster())
    assert find_suitable(load_settings()) == (cluster(), "")
    assert sys.platform == "win32" or folder.stat().st_mode & 0o777 == 0o700
    joined = joining(load_settings(), cluster())
    assert joined.cluster.address == "127.0.0.1:40001"
    kept.remove_leftovers(None)
    assert find_kept() == (None, "")


@posix_only
def test_a_folder_that_is_open_to_others_is_not_followed(folder: Path) -> None:
    """I7: its record would name the head to which photos are sent."""
    kept.write(cluster())
    folder.chmod(0o755)
    found, why = find_suitable(load_settings())
    assert found is None
    assert "open to others" in why
    with pytest.raises(ConfigurationError, match="open to others"):
        kept.make_folder()


@posix_only
def test_a_record_of_another_user_is_not_followed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.write(cluster())
    someone = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: someone)
    found, why = find_suitable(load_settings())
    assert found is None
    assert "belongs to another user" in why


@posix_only
def test_a_link_in_place_of_the_record_is_not_followed(folder: Path, tmp_path: Path) -> None:
    kept.write(cluster())
    (folder / "cluster.json").rename(tmp_path / "elsewhere.json")
    (folder / "cluster.json").symlink_to(tmp_path / "elsewhere.json")
    found, why = find_suitable(load_settings())
    assert found is None
    assert "is no file" in why


@pytest.mark.parametrize(
    "text", ["", "{}", '{"processes": []}', '{"processes": [{"pid": 1}]}', "[1]", "\x00"]
)
def test_a_record_that_cannot_be_read_is_none(folder: Path, text: str) -> None:
    kept.write(cluster())
    (folder / "cluster.json").write_text(text)
    assert find_kept() == (None, "")


@pytest.mark.parametrize(
    "change",
    [
        {"processes": [{"name": "x", "pid": "1", "born": "q"}]},
        {"processes": [{"name": "x", "pid": 1, "born": 0}]},
        {"address": 5},
        {"since": "x"},
        {"since": float("nan")},
        {"settings": []},
        {"temp_dir": "\0"},
        {"versions": None},
        {"boot": None},
    ],
)
def test_a_record_with_a_value_of_the_wrong_type_is_none(folder: Path, change: dict[str, Any]) -> None:
    kept.write(cluster())
    (folder / "cluster.json").write_text(json.dumps(asdict(cluster()) | change))
    assert kept.read() is None


@pytest.mark.parametrize("name", ["versions", "boot"])
def test_a_record_that_does_not_name_its_boot_or_versions_is_none(folder: Path, name: str) -> None:
    """It must not look like a record of this boot."""
    kept.write(cluster())
    values = asdict(cluster())
    del values[name]
    (folder / "cluster.json").write_text(json.dumps(values))
    assert kept.read() is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.sampled_from(sorted(asdict(cluster()))), value=_JSON)
def test_any_json_in_a_record_is_read_or_is_none(folder: Path, name: str, value: Any) -> None:
    kept.write(cluster())
    (folder / "cluster.json").write_text(json.dumps(asdict(cluster()) | {name: value}))
    found = kept.read()
    if found is not None:
        assert str(found)
        found.why_ended()
        found.why_other(load_settings())


@posix_only
def test_a_process_of_another_user_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    here = this_process("raylet")
    someone = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: someone)
    assert not here.is_alive()


def test_another_process_with_the_same_number_is_not_the_recorded_one() -> None:
    here = this_process("raylet")
    assert here.is_alive()
    other = replace(here, born=here.born - 100.0)
    assert not other.is_alive()
    other.kill()  # would end this test


def test_a_cluster_whose_raylet_is_gone_has_ended() -> None:
    whole = cluster()
    keeper, gcs, raylet = whole.processes
    kept.write(replace(whole, processes=(keeper, gcs, replace(raylet, born=1.0))))
    found, why = find_kept()
    assert found is None
    assert "raylet ended" in why
    assert "`rayface up` starts it anew" in why


@pytest.fixture
def agent() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits until it is killed, as an agent of Ray that has lost its node."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def left_behind(agent: subprocess.Popen[bytes], temp_dir: Path, *, by_killed_keeper: bool) -> KeptCluster:
    """A recorded cluster without a raylet; the process is its agent, or its keeper if none was killed."""
    temp_dir.mkdir(mode=0o700)
    keeper, gcs, raylet = (replace(each, born=1.0) for each in cluster().processes)
    waiting = KeptProcess.of(psutil.Process(agent.pid))
    assert waiting is not None
    processes = (keeper, gcs, raylet, waiting) if by_killed_keeper else (waiting, gcs, raylet)
    made = replace(cluster(), temp_dir=str(temp_dir), processes=processes)
    kept.write(made)
    return made


def test_what_a_killed_keeper_left_is_cleared_away(agent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """By the next run that would use it, which says in a sentence that it has ended."""
    temp_dir = tmp_path / f"{kept.TEMP_PREFIX}x"
    left_behind(agent, temp_dir, by_killed_keeper=True)
    found, why = find_suitable(load_settings())
    assert found is None
    assert "has ended" in why
    assert agent.wait(30) != 0
    assert not temp_dir.exists()
    assert find_kept() == (None, "")


def test_a_keeper_that_runs_clears_away_itself(agent: subprocess.Popen[bytes], tmp_path: Path) -> None:
    made = left_behind(agent, tmp_path / f"{kept.TEMP_PREFIX}x", by_killed_keeper=False)
    assert "has ended" in find_suitable(load_settings())[1]
    assert agent.poll() is None
    assert kept.read() == made


def test_what_another_command_clears_away_is_left_to_it(
    agent: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    made = left_behind(agent, tmp_path / f"{kept.TEMP_PREFIX}x", by_killed_keeper=True)
    with kept.lock():
        assert "has ended" in find_suitable(load_settings())[1]
    assert agent.poll() is None
    assert kept.read() == made


def test_a_cluster_of_an_earlier_start_of_the_machine_has_ended() -> None:
    """Its numbers of processes say nothing any more."""
    assert "started again" in replace(cluster(), boot="earlier").why_ended()


def test_a_cluster_of_another_version_is_left_alone() -> None:
    other = replace(cluster(), versions=kept.versions() | {"rayface": "0.0.9"})
    assert other.why_other(load_settings()) == "it runs rayface 0.0.9"
    kept.write(other)
    assert find_suitable(load_settings())[0] is None


def test_a_cluster_of_other_settings_is_left_alone() -> None:
    """A detector keeps the settings that it was placed with; the name of the setting is said."""
    kept.write(cluster())
    found, why = find_suitable(load_settings(detector={"model": "yunet", "score_threshold": 0.7}))
    assert found is None
    assert "another detector.model." in why
    # Each call brings its own thresholds.
    assert find_suitable(load_settings(detector={"score_threshold": 0.7, "max_faces": 1})) == (cluster(), "")
    found, why = find_suitable(load_settings(detector={"num_lanes": 1}))
    assert found is not None
    assert "another detector.num_lanes, which changes no answer" in why
    # Those of the client do not matter.
    assert find_suitable(load_settings(client={"deadline_s": 5.0}))[0] is not None


def test_only_a_folder_of_a_kept_cluster_is_removed(tmp_path: Path) -> None:
    for name in ("precious", f"{kept.TEMP_PREFIX}x"):
        (tmp_path / name).mkdir(mode=0o700)
        (tmp_path / name / "file").touch()
        kept.remove_temp_dir(str(tmp_path / name))
    assert [each.name for each in tmp_path.iterdir()] == ["precious"]
