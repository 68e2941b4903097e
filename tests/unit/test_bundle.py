"""What is in an archive for a bug report, and what never is."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from cluster.doctor import bundle
from cluster.doctor.bundle import redacted, secrets, write_bundle
from cluster.errors import ConfigurationError
from cluster.node.findings import warn
from cluster.settings import Settings, load_settings

TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "logs"
    folder.mkdir()
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    return folder


def settings(logs: Path) -> Settings:
    return load_settings(head={"log_folder": str(logs)}, join={"log_folder": str(logs)})


def parts(target: Path) -> dict[str, str]:
    with zipfile.ZipFile(target) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_neither_token_nor_secrets_nor_photos_nor_homes(
    logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "token"
    kept.write_text("k" * 40)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(kept))
    monkeypatch.setenv("RAY_REDIS_PASSWORD", "hunter2hunter2")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "never-to-be-seen")
    monkeypatch.setenv("RAY_EXTERNAL", "redis://me:open-sesame@10.0.0.9:6379")
    monkeypatch.setenv("RAYFACE_TEST_NOTE", "fine")
    (logs / "head.log").write_text(
        f"token {TOKEN} and {'k' * 40}, password hunter2hunter2, never-to-be-seen\n"
        "opened /home/anna/Holiday 2024/my dog.JPG at 10.0.0.7:6379\n"
        "opened C:\\Users\\Anna B\\Pictures\\beach.heic and beach2.png\n"
    )
    found = [warn("disk", f"{Path.home()}/photos/wedding.jpeg is large", "C:\\Users\\anna\\x")]
    target = tmp_path / "bundle.zip"
    names = write_bundle(target, found, {"detectors": [TOKEN]}, settings(logs))
    texts = parts(target)
    assert set(names) == set(texts)
    whole = "\n".join(texts.values())
    for secret in (TOKEN, "k" * 40, "hunter2", "never-to-be-seen", "open-sesame"):
        assert secret not in whole
    for name in ("dog", "beach", "wedding", "Holiday", "anna", "Anna"):
        assert name not in whole, name
    assert "10.0.0.7:6379" in whole, "addresses may be seen"
    assert "10.0.0.9:6379" in whole
    assert "RAYFACE_TEST_NOTE=fine" in whole
    assert "AWS_" not in whole
    for name in ("findings.json", "machine.json", "settings.json", "status.json"):
        json.loads(texts[name])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (r'{"path": "C:\\Users\\Anna\\rayface"}', r'{"path": "C:\\Users\\<user>\\rayface"}'),
        ("/Users/anna/rayface", "/Users/<user>/rayface"),
        ("in /home/anna: no", "in /home/<user>: no"),
        ("tests/photos/a.jpg: broken", "tests<photo>: broken"),
        ("IMG_0001.JPG was rejected", "<photo> was rejected"),
        ("centerface.onnx at 192.168.1.5:6379", "centerface.onnx at 192.168.1.5:6379"),
    ],
)
def test_what_is_left_of_a_line(text: str, left: str) -> None:
    assert redacted(text, ()) == left


def test_short_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a variable SOME_KEY=1 would remove every 1 from the text."""
    monkeypatch.setenv("SOME_KEY", "1")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert "1" not in secrets()
    assert TOKEN in secrets()


def test_it_stays_small(logs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_MAX_LOGS", 3)
    for number in range(8):
        (logs / f"{number}.log").write_text(f"begins {number}\n" + f"line {number}\n" * 100_000 + "end\n")
    target = tmp_path / "bundle.zip"
    names = write_bundle(target, [], {"clients": ["x" * 3_000_000]}, settings(logs))
    texts = parts(target)
    assert len([name for name in names if name.startswith("logs/")]) == 3
    for name, text in texts.items():
        assert len(text) <= 1_000_100, name
        if name.startswith("logs/"):
            assert len(text) <= 200_000
            assert text.endswith("end\n")
            assert "begins" not in text


def test_a_secret_at_the_edge_of_what_is_kept(logs: Path, tmp_path: Path) -> None:
    """Half a token is a secret too."""
    (logs / "head.log").write_text(f"{TOKEN * 4_000}\nnew line\n")
    target = tmp_path / "bundle.zip"
    write_bundle(target, [], None, settings(logs))
    text = parts(target)["logs/01-head.log"]
    assert TOKEN[:16] not in text
    assert "new line" in text


def test_a_place_that_cannot_be_written(logs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write_bundle(tmp_path / "no" / "such" / "folder.zip", [], None, settings(logs))
