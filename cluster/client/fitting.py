"""Which detectors fit a client: those that were placed with the model and the tensors that it asks for.

The first client of a cluster places the detectors, by its own settings. A later one with another model would
get that one's answers. So each client compares, as soon as it hears a detector, and each of its calls names
the model that it wants, which the detector compares too: no photo is answered by another model than asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from actors import models
from actors.call_settings import CallSettings, ModelChoice
from actors.faces import Failed, Failure, Health, Outcome
from actors.images import PreparedImage
from actors.settings import OF_MODEL, OF_OPERATION, DetectorSettings
from cluster.errors import Fault
from cluster.settings import Settings

#: Until images are asked for again that a detector has refused which fits by now.
_AGAIN_S = 0.1
_USE = 'cluster.other_settings = "use"'
_REPLACE = "with your settings, `rayface place --replace` places it anew without losing a photo"


class Fitting:
    """Judges detectors by the settings that they were placed with.

    Args:
        settings: of the client.
        log: told once of each detector whose other settings concern only how it works.

    Attributes:
        used: the model and the tensors that this client's answers come from.
        shapes: the tensor sizes (height, width) for which photos are made small, in pixels.
    """

    def __init__(self, settings: Settings, log: logging.Logger) -> None:
        self._detector = settings.detector
        self._uses_others = settings.cluster.other_settings == "use"
        self._log = log
        #: The life of each detector that was told of.
        self._told: dict[str, str] = {}
        self._is_heard = False
        self._of_calls = CallSettings.of(self._detector)
        self._own = ModelChoice.of(self._detector, models.known_digest(self._detector))
        self.used = self._own
        self.shapes: Sequence[tuple[int, int]] = self._detector.shapes

    def of_call(self, score_threshold: float | None, max_faces: int | None) -> CallSettings:
        """The settings of a call: what its caller chooses, and else what this client's settings say.

        Raises:
            ValueError: a value is out of its range.
        """
        if score_threshold is None and max_faces is None:
            return self._of_calls
        return CallSettings(
            self._of_calls.score_threshold if score_threshold is None else score_threshold,
            self._of_calls.nms_threshold,
            self._of_calls.max_faces if max_faces is None else max_faces,
        )

    @property
    def wanted(self) -> ModelChoice | None:
        """What the detector that is asked must have; None where any is taken and none was heard yet."""
        return self.used if self._is_heard or not self._uses_others else None

    @property
    def of_cpu(self) -> DetectorSettings:
        """The client's settings with the model in use: what this machine's CPU answers with."""
        path = self.used.model_path or None
        update = {"model": self.used.model, "model_path": path, "input_size": self.used.input_size}
        # Validated, because a path arrives as text.
        return DetectorSettings.model_validate(self._detector.model_dump() | update)

    def judged(self, health: Health, others: Sequence[Health]) -> Fault | None:
        """Take in what a detector reports; returns why it must not be asked, or None.

        Args:
            health: of the detector.
            others: what the other detectors have reported.
        """
        self.hear([health, *others])
        misfit = self.fault_of(health)
        if misfit is None:
            self.tell(health)
        return misfit

    def as_wanted(self, settings: CallSettings) -> CallSettings:
        """The settings of a call, with the model that its answers must come from."""
        return settings if self.wanted is None else replace(settings, wanted=self.wanted)

    def is_stale(self, photo: PreparedImage) -> bool:
        """Whether a photo was made small for tensors that no detector in use takes any more."""
        return photo.shape not in self.shapes

    def hear(self, healths: Iterable[Health]) -> None:
        """Take in what the detectors report, all of them together: it decides which model is in use."""
        placed = {each.name: choice for each in healths if (choice := placed_choice(each)) is not None}
        if self._uses_others and placed:
            self._is_heard = True
            if not any(self._own.fits(each) for each in placed.values()):
                fitting = (each for each in placed.values() if self.used.fits(each))
                self.used = next(fitting, next(iter(placed.values())))
            else:
                self.used = self._own
        for each in healths:
            if each.shapes and self.fault_of(each) is None:
                self.shapes = each.shapes
                break
        else:
            self.shapes = self.of_cpu.shapes if placed else self.shapes

    def fault_of(self, health: Health) -> Fault | None:
        """Why a detector must not be asked; None if it fits, or does not say what it was placed with."""
        placed = placed_choice(health)
        if placed is None or not (difference := self.used.difference_to(placed)):
            return None
        way_out = f"To take it as it is, set {placed.variables}, or {_USE}; {_REPLACE}."
        where = f" on {health.host}" if health.host else ""
        by = f"by {health.placed_by} " if health.placed_by else ""
        return Fault.of(
            Failure.OTHER_SETTINGS,
            f"{health.name}{where} was placed {by}with {difference}. {way_out}",
        )

    def tell(self, health: Health) -> None:
        """Log once what a detector was placed with where it differs and changes no answer."""
        if health.settings is None or self._told.get(health.name) == health.stamp.incarnation:
            return
        self._told[health.name] = health.stamp.incarnation
        if differences := in_operation(health.settings, self._detector):
            self._log.info(
                "%s was placed with other settings, which change no answer: %s.",
                health.name,
                "; ".join(differences),
                extra={"about": health.name},
            )


def has_other_settings(outcomes: Sequence[Outcome]) -> bool:
    """Whether the detector has refused images because of its settings."""
    return any(isinstance(each, Failed) and each.reason is Failure.OTHER_SETTINGS for each in outcomes)


def as_known_now(outcomes: Sequence[Outcome], misfit: Fault | None) -> list[Outcome]:
    """The outcomes of a detector that was placed anew, after it has said with which settings.

    Args:
        outcomes: of one call.
        misfit: why it must not be asked; None if it fits, and then its images may be asked for again.
    """

    def known(outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Failed) or outcome.reason is not Failure.OTHER_SETTINGS:
            return outcome
        if misfit is not None:
            return replace(outcome, detail=misfit.detail)
        anew = "The detector was placed anew with other settings meanwhile; the photo is asked for again."
        return replace(outcome, reason=Failure.NOT_READY, detail=anew, retry_after_s=_AGAIN_S)

    return [known(each) for each in outcomes]


def placed_choice(health: Health) -> ModelChoice | None:
    """The model and the tensors of a detector; None if it does not say."""
    if health.settings is None:
        return None
    known = {name: value for name, value in health.settings.items() if name in OF_MODEL}
    return ModelChoice.of(DetectorSettings.model_validate(known), health.stamp.model.rpartition("@")[2])


def differences(health: Health, own: DetectorSettings) -> list[str]:
    """How a detector was placed where that differs from these settings and is not brought by each call.

    Returns:
        Each a part of a sentence with both values; those that change answers come first.
    """
    placed = placed_choice(health)
    if placed is None or health.settings is None:
        return []
    difference = ModelChoice.of(own, models.known_digest(own)).difference_to(placed)
    return ([difference] if difference else []) + in_operation(health.settings, own)


def in_operation(placed: Mapping[str, Any], own: DetectorSettings) -> list[str]:
    """The settings that concern only how a detector works and that differ, each with both values in words."""
    ours = own.model_dump(mode="json")
    return [
        f"detector.{name} = {placed[name]} there and {ours[name]} here"
        for name in sorted(OF_OPERATION)
        if name in placed and placed[name] != ours[name]
    ]
