"""Settings: file, variables and overrides, and what a person reads when one is wrong."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from cluster.errors import ConfigurationError
from cluster.settings import Settings, load_settings


def test_the_default_serves_a_newcomer() -> None:
    """Without anything set: CenterFace on the CPU, on an embedded cluster."""
    settings = load_settings()
    assert (settings.detector.model, settings.detector.provider) == ("centerface", "cpu")
    assert settings.cluster.address is None


def test_variable_beats_file_and_override_beats_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overrides, then variables, then the file, then the defaults, section by section."""
    file = tmp_path / "mine.toml"
    file.write_text('[detector]\nmodel = "from_file"\nmax_faces = 7\ninput_size = 320\n', encoding="utf-8")
    monkeypatch.setenv("RAYFACE_DETECTOR__MODEL", "from_variable")
    monkeypatch.setenv("RAYFACE_DETECTOR__INPUT_SIZE", "384")
    settings = load_settings(file, detector={"input_size": 512})
    assert settings.detector.model == "from_variable"
    assert settings.detector.max_faces == 7
    assert settings.detector.input_size == 512


def test_the_file_can_be_named_by_a_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """RAYFACE_CONFIG names the settings file."""
    file = tmp_path / "other.toml"
    file.write_text("[client]\nimages_per_call = 3\n", encoding="utf-8")
    monkeypatch.setenv("RAYFACE_CONFIG", str(file))
    assert load_settings().client.images_per_call == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[detector]\nmodle = 'yunet'\n", "detector.modle"),
        ("[detector]\ninput_size = 100\n", "multiple of 32"),
        ("[detector]\nbatch_sizes = [2, 4]\n", "begin with 1"),
        ("[detector\n", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_named_with_its_fault(tmp_path: Path, text: str, said: str) -> None:
    """The message holds the setting and what was expected, and is no traceback."""
    file = tmp_path / "wrong.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"wrong\.toml") as caught:
        load_settings(file)
    assert said in str(caught.value)


def test_a_misspelt_variable_is_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that would have no effect is an error, with the likely name."""
    monkeypatch.setenv("RAYFACE_DETECTR__MODEL", "yunet")
    with pytest.raises(ConfigurationError, match="RAYFACE_DETECTOR"):
        load_settings()


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """The path is in the message."""
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml")


def _described(cls: type[BaseModel]) -> dict[str, str]:
    """The fields that the docstrings of a class and of its bases describe, each with its sentences."""
    found: dict[str, str] = {}
    for each in (cls, *cls.__bases__):
        _, _, attributes = inspect.cleandoc(each.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): ((?:.+\n?)(?: {8}.+\n?)*)", attributes, re.MULTILINE):
            found[name] = " ".join(text.split())
    return found


@pytest.mark.parametrize("section", ["", *Settings.model_fields])
def test_every_setting_is_described(section: str) -> None:
    """docs/settings.md is made of these sentences."""
    cls: type[BaseModel] = type(getattr(load_settings(), section)) if section else Settings
    described = _described(cls)
    assert set(cls.model_fields) <= set(described)
    for name, text in described.items():
        assert text.endswith("."), f"{name}: {text}"
