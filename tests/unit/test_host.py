"""What a machine finds out about itself, with each thing wrong in turn."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from actors import models
from actors.ownership import DeviceLock, Holder
from actors.settings import DetectorSettings
from cluster.doctor import host, platform_hints
from cluster.node.findings import Finding, Verdict
from cluster.settings import Settings, load_settings


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """A machine on which all is well: a token, a model, one onnxruntime, room."""
    token = tmp_path / "token"
    token.write_text("t" * 64)
    token.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setattr(models, "state", lambda settings: ("whole", Path("centerface.onnx")))
    monkeypatch.setattr(host, "available_providers", lambda: ("CPUExecutionProvider",))
    versions(monkeypatch, onnxruntime="1.32.0")
    room(monkeypatch, free=0.5)
    memory(monkeypatch, 8e9)
    monkeypatch.setattr("actors.ownership.machine_folder", lambda: tmp_path)
    return load_settings()


def versions(monkeypatch: pytest.MonkeyPatch, **packages: str) -> None:
    known = {"ray": "2.60.0", "rayface": "0.1.0"} | {k.replace("_", "-"): v for k, v in packages.items()}
    monkeypatch.setattr(host, "_version", lambda name: known.get(name, ""))
    monkeypatch.setattr(host, "_requirements", lambda: ["ray[default]==2.60.0", "numpy>=2"])


def room(monkeypatch: pytest.MonkeyPatch, free: float, total: float = 1e9, ray_runs: bool = False) -> None:
    usage = SimpleNamespace(total=total, free=free * total, used=(1 - free) * total)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(host, "_ray_runs_here", lambda: ray_runs)


def memory(monkeypatch: pytest.MonkeyPatch, available: float) -> None:
    seen = SimpleNamespace(available=available, total=16e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: seen)


def look(settings: Settings, name: str, *devices: str, role: str = "head", **options: Any) -> Finding:
    """The finding of that name; there must be one."""
    found = [each for each in host.examine(settings, devices, role, **options) if each.name == name]
    assert found, name
    return found[0]


def test_a_machine_on_which_all_is_well(here: Settings) -> None:
    found = host.examine(here, ("cpu:0",), "join")
    assert [each for each in found if each.verdict is not Verdict.OK] == []
    names = {each.name for each in found}
    assert names >= {"python", "ray", "onnxruntime", "token", "model", "provider", "owner"}
    assert names >= {"memory", "object store", "disk"}


def test_two_onnxruntimes_in_one_environment(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, onnxruntime="1.32.0", onnxruntime_directml="1.24.4")
    found = look(here, "onnxruntime")
    assert found.verdict is Verdict.WRONG
    assert "onnxruntime 1.32.0, onnxruntime-directml 1.24.4" in found.evidence
    assert "pip uninstall -y onnxruntime onnxruntime-directml" in found.advice


def test_no_onnxruntime_and_another_ray(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, ray="2.59.0")
    assert look(here, "onnxruntime").verdict is Verdict.WRONG
    found = look(here, "ray")
    assert found.verdict is Verdict.WRONG
    assert "2.59.0" in found.evidence
    assert "2.60.0" in found.evidence


def test_a_provider_that_is_not_there(here: Settings) -> None:
    found = look(here, "provider", "directml:0", role="join")
    assert found.verdict is Verdict.WRONG
    assert "directml:0 needs DmlExecutionProvider" in found.evidence
    assert "only CPUExecutionProvider" in found.evidence


@pytest.mark.parametrize(
    ("state", "needed", "verdict"),
    [
        ("altered", True, Verdict.WRONG),
        ("missing", True, Verdict.WARN),
        ("missing", False, Verdict.OK),
        ("own", True, Verdict.OK),
    ],
)
def test_the_model(
    here: Settings, monkeypatch: pytest.MonkeyPatch, state: str, needed: bool, verdict: Verdict
) -> None:
    """A machine that lends nothing needs none."""
    monkeypatch.setattr(models, "state", lambda settings: (state, Path("m.onnx")))
    assert look(here, "model", needs_model=needed).verdict is verdict


def test_an_altered_model_is_told_from_the_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYFACE_CACHE_DIR", str(tmp_path))
    _, path = models.state(DetectorSettings())
    assert path is not None
    path.parent.mkdir(parents=True)
    path.write_bytes(b"altered")
    assert models.state(DetectorSettings()) == ("altered", path)
    assert models.state(DetectorSettings(model_path=path)) == ("own", path)


def test_a_token_that_is_missing_empty_or_none(here: Settings) -> None:
    path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    for content in (
        b"",
        b"short",
        b"with a blank in " * 4,
        "t".encode("utf-16") * 40,
        b"\xef\xbb\xbf" + b"t" * 64,
    ):
        path.write_bytes(content)
        found = look(here, "token")
        assert found.verdict is Verdict.WRONG, content
        assert "rayface token save" in found.advice
    path.unlink()
    found = look(here, "token")
    assert found.verdict is Verdict.WRONG
    assert str(path) in found.evidence
    assert "t" * 16 not in found.evidence


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_a_token_that_everybody_can_read(here: Settings) -> None:
    path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    path.chmod(0o644)
    found = look(here, "token")
    assert found.verdict is Verdict.WARN
    assert found.advice == f"chmod 600 {path}"


def test_a_variable_that_hides_another_token(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "u" * 64)
    found = look(here, "token")
    assert found.verdict is Verdict.WARN
    assert "uuuu" not in found.evidence
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 64)
    assert look(here, "token").evidence == "from RAY_AUTH_TOKEN"


def test_who_holds_a_device(here: Settings, tmp_path: Path) -> None:
    """A holder that lives is named; the record of one that is gone is no reason to worry."""
    lock = DeviceLock("cpu-5")
    assert "nobody has" in look(here, "owner", "cpu:5", role="join").evidence
    lock.acquire("FaceDetector", "home")
    try:
        alive = look(here, "owner", "cpu:5", role="join")
        record = (tmp_path / "rayface-cpu-5.json").read_text()
    finally:
        lock.release()
    assert f"belongs to FaceDetector (pid {os.getpid()}" in alive.evidence
    assert "no `rayface join` runs here" in alive.evidence
    assert alive.verdict is Verdict.WRONG
    (tmp_path / "rayface-cpu-5.json").write_text(record.replace('"born": 1', '"born": 9'))
    gone = look(here, "owner", "cpu:5", role="join")
    assert gone.verdict is Verdict.OK
    assert "who is gone" in gone.evidence


def test_a_process_that_we_may_not_look_at_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int) -> psutil.Process:
        raise psutil.AccessDenied(pid)

    holder = Holder.here("a", "b")
    monkeypatch.setattr(psutil, "Process", refused)
    assert holder.is_alive()


def test_little_memory(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 5e8)
    assert look(here, "memory").verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("free", "total", "ray_runs", "verdict"),
    [
        (0.5, 1e9, False, Verdict.OK),
        (0.08, 8e9, True, Verdict.WARN),
        (0.02, 8e9, True, Verdict.WRONG),
        (0.5, 64e6, True, Verdict.WARN),
        (0.2, 1e9, False, Verdict.WARN),
        (0.2, 1e9, True, Verdict.OK),
    ],
)
def test_the_place_under_the_object_store(
    here: Settings,
    monkeypatch: pytest.MonkeyPatch,
    free: float,
    total: float,
    ray_runs: bool,
    verdict: Verdict,
) -> None:
    """Full counts also while Ray runs there; a container's 64 MB are too few."""
    room(monkeypatch, free, total, ray_runs)
    assert look(here, "object store").verdict is verdict


@pytest.mark.parametrize(
    ("free", "verdict"), [(0.2, Verdict.OK), (0.07, Verdict.WARN), (0.01, Verdict.WRONG)]
)
def test_the_disk(here: Settings, monkeypatch: pytest.MonkeyPatch, free: float, verdict: Verdict) -> None:
    room(monkeypatch, free, 1e12)
    assert look(here, "disk").verdict is verdict


def test_a_session_folder_that_is_not_there_yet(here: Settings, tmp_path: Path) -> None:
    head = here.head.model_copy(update={"temp_dir": tmp_path / "not" / "yet"})
    found = look(here.model_copy(update={"head": head}), "disk")
    assert str(tmp_path) in found.evidence


def test_a_check_that_fails_hides_nothing(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise OSError("no such thing")

    monkeypatch.setattr(psutil, "virtual_memory", fails)
    found = look(here, "memory")
    assert found.verdict is Verdict.WARN
    assert "no such thing" in found.evidence
    assert look(here, "disk").verdict is Verdict.OK


def test_in_a_cluster_it_looks_with_the_settings_of_who_asks(
    here: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYFACE_NODE_DEVICES", "cpu:5,cpu:6")
    seen: list[str] = []

    def whole(settings: DetectorSettings) -> tuple[str, None]:
        seen.append(settings.model)
        return "whole", None

    monkeypatch.setattr(models, "state", whole)
    known = host.examine_here(DetectorSettings(model="yunet").model_dump(mode="json"))
    assert seen == ["yunet"]
    owners = [each["evidence"] for each in known["findings"] if each["name"] == "owner"]
    assert owners == ["nobody has cpu-5", "nobody has cpu-6"]
    assert known["facts"]["onnxruntime"] == {"onnxruntime": "1.32.0"}


def test_hints_of_docker_and_firewalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-generic")
    monkeypatch.setattr(platform_hints, "_runs", lambda names: False)
    assert [*platform_hints.docker(tmp_path), *platform_hints.linux_firewall(tmp_path)] == []
    (tmp_path / "etc/ufw").mkdir(parents=True)
    (tmp_path / "etc/ufw/ufw.conf").write_text("ENABLED=yes\n")
    (tmp_path / "run/firewalld").mkdir(parents=True)
    assert [each.evidence.split()[0] for each in platform_hints.linux_firewall(tmp_path)] == [
        "ufw",
        "firewalld",
    ]
    monkeypatch.setattr(platform, "release", lambda: "5.15-microsoft-standard-WSL2")
    assert next(platform_hints.docker(tmp_path)).verdict is Verdict.WARN
    (tmp_path / ".dockerenv").touch()
    assert "a container of Docker Desktop" in next(platform_hints.docker(tmp_path)).evidence


@pytest.mark.skipif(sys.platform == "win32", reason="there it says something")
def test_elsewhere_than_on_windows_windows_says_nothing() -> None:
    assert [
        *platform_hints.adapters(("cpu:0",)),
        *platform_hints.session(),
        *platform_hints.windows_firewall(),
    ] == []
