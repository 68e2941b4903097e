"""Lets commands use the cluster that `rayface up` keeps on this machine, where nobody names another one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import ConfigurationError
from cluster.node import kept
from cluster.node.kept import KeptCluster

# Loading the settings takes longer than all of this; `detect` needs the kept cluster before.
if TYPE_CHECKING:
    from cluster.settings import Settings

#: Variables by which a person says which cluster to use.
_CHOSEN = ("RAYFACE_CONFIG", "RAYFACE_CLUSTER__ADDRESS", "RAY_ADDRESS")


def find_kept() -> tuple[KeptCluster | None, str]:
    """The kept cluster of this machine, if it is alive; else None, and the reason in a sentence, or ""."""
    try:
        cluster = kept.read()
    except ConfigurationError as error:
        return None, f"The kept cluster is not used: {error}"
    if cluster is not None and (reason := cluster.why_ended()):
        return None, f"The kept cluster has ended: {reason}. `rayface up` starts it anew."
    return cluster, ""


def find_suitable(settings: Settings) -> tuple[KeptCluster | None, str]:
    """As `find_kept`, but one of other versions, or with another model or device, is left alone.

    Then the sentence says so. It also says which settings differ that change no answer. What is left of one
    that has ended is cleared away.
    """
    cluster, problem = find_kept()
    if problem:
        kept.clear_away()
    if cluster is not None and (reason := cluster.why_other(settings)):
        return None, f"The kept cluster is not used: {reason}. `rayface down` ends it."
    if cluster is not None and (others := cluster.in_operation(settings)):
        problem = (
            f"The kept cluster was started with another {', '.join(others)}, which changes no answer. For "
            "yours, run `rayface down`, and `rayface up` with your settings."
        )
    return cluster, problem


def joining(settings: Settings, cluster: KeptCluster) -> Settings:
    """The settings, with the kept cluster as the one to join."""
    there = {name: cluster.settings[f"cluster.{name}"] for name in ("namespace", "detector_name")}
    joined = settings.cluster.model_copy(update={"address": cluster.address, **there})
    return settings.model_copy(update={"cluster": joined})


def is_address_chosen(address: str | None, config: Path | None) -> bool:
    """Whether a person has said which cluster to use, by an option, a file or a variable."""
    return bool(address or config or any(os.environ.get(each) for each in _CHOSEN))
