"""What an embedded cluster is given."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cluster.deployment.joining import prepare_embedded
from cluster.node import token
from cluster.ray_variables import EMBEDDED_VARIABLES

SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


def test_the_token_of_an_embedded_cluster_is_this_users_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """I7: Ray would create one that everybody can read."""
    file = tmp_path / "token"
    monkeypatch.setattr(token, "token_file", lambda: file)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    prepare_embedded({}, lambda is_allowed: None)
    assert len(file.read_text()) >= 32
    assert sys.platform == "win32" or file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("set_by_a_person", "is_allowed"), [({}, False), ({SWITCH: "1"}, True)])
def test_an_embedded_cluster_is_for_its_own_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, set_by_a_person: dict[str, str], is_allowed: bool
) -> None:
    """I7: unless a person says otherwise."""
    monkeypatch.setattr(token, "token_file", lambda: tmp_path / "token")
    environment, allowed = dict(set_by_a_person), list[bool]()
    prepare_embedded(environment, allowed.append)
    assert allowed == [is_allowed]
    assert (
        environment == {"RAY_USAGE_STATS_ENABLED": "0", **EMBEDDED_VARIABLES, SWITCH: "0"} | set_by_a_person
    )
