"""In which settings a kept cluster may differ from those of a program that would join it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.settings import OF_CALL, OF_CALLER, OF_OPERATION
from cluster.settings import Settings

#: A program's own values count, whatever the cluster was started with.
_BROUGHT = {f"detector.{name}" for name in OF_CALL | OF_CALLER}
_OPERATION = {f"detector.{name}" for name in OF_OPERATION}


def settings_of(settings: Settings) -> dict[str, Any]:
    """The settings of a kept cluster, by name, as JSON-ready values."""
    cluster = settings.cluster
    sections = {"detector": settings.detector, "tracing": settings.tracing}
    return {
        **{
            f"{section}.{name}": value
            for section, model in sections.items()
            for name, value in model.model_dump(mode="json").items()
        },
        "cluster.namespace": cluster.namespace,
        "cluster.detector_name": cluster.detector_name,
        "cluster.max_task_retries": cluster.max_task_retries,
    }


def others(recorded: Mapping[str, Any], settings: Settings) -> tuple[list[str], list[str]]:
    """The names of the settings in which a kept cluster differs.

    Args:
        recorded: what `settings_of` gave when it was started.
        settings: of the program that would join it.

    Returns:
        Those for which it cannot be used: the model, the device, tracing. And those that concern only how
        its detector works, and no answer.
    """
    wanted = settings_of(settings)
    names = sorted(name for name in {*wanted, *recorded} if wanted.get(name) != recorded.get(name))
    return (
        [name for name in names if name not in _BROUGHT | _OPERATION],
        [name for name in names if name in _OPERATION],
    )
