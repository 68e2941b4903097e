"""Which model a machine that joins needs: that of the placed detectors, and not that of its own file.

A detector is made by the settings of the client that places it. So a model in this machine's own file that
cannot be fetched keeps the machine from nothing, as long as nobody wants that model.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from pydantic import ValidationError

from actors import models
from actors.errors import ModelUnavailable
from actors.faces import Failure
from actors.settings import OF_MODEL, DetectorSettings
from cluster.node.checks import REMEDIES
from cluster.node.findings import Finding, ok, warn, wrong


def check_wanted_models(
    own: DetectorSettings, placed: Mapping[str, Mapping[str, Any]]
) -> Generator[Finding, None, DetectorSettings | None]:
    """The models that placed detectors have can be used here; they are fetched now if they are not here.

    Args:
        own: the settings of this machine.
        placed: the settings of each placed detector, JSON-ready, by its name.

    Returns:
        The settings by which the device is to be tried; None if there is no model to try it with.
    """
    wanted = _by_model(own, placed)
    if not wanted:
        return (yield from _own_model(own))
    problems: list[tuple[str, str]] = []
    usable: DetectorSettings | None = None
    for settings, names in wanted:
        try:
            label = models.ready_model(settings).label
        except ModelUnavailable as error:
            problems.append((", ".join(names), str(error)))
        else:
            usable = usable or settings
            yield ok("model", f"{label}, as {', '.join(names)} {'has' if len(names) == 1 else 'have'} it")
    for who, problem in problems:
        # With another model that is wanted too, the machine is of use.
        say = wrong if usable is None else warn
        yield say("model", f"{who} cannot work here: {problem}", REMEDIES[Failure.MODEL_UNAVAILABLE])
    return usable


def _own_model(own: DetectorSettings) -> Generator[Finding, None, DetectorSettings | None]:
    try:
        yield ok("model", models.ready_model(own).label)
    except ModelUnavailable as error:
        yield warn(
            "model",
            f"this machine's own cannot be used, and no placed detector wants it: {error}",
            "Nothing need be done as long as the client that places the detector names another model.",
        )
        return None
    return own


def _by_model(
    own: DetectorSettings, placed: Mapping[str, Mapping[str, Any]]
) -> list[tuple[DetectorSettings, list[str]]]:
    """This machine's settings with each model that placed detectors have, and the names of those."""
    found: list[tuple[DetectorSettings, list[str]]] = []
    for name, values in sorted(placed.items()):
        chosen = {each: values[each] for each in OF_MODEL if each in values}
        try:
            settings = DetectorSettings.model_validate(own.model_dump() | chosen)
        except ValidationError:
            # Another version placed it; what it means is not known here.
            continue
        for known, names in found:
            if known == settings:
                names.append(name)
                break
        else:
            found.append((settings, [name]))
    return found
