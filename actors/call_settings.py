"""What a caller chooses for the photos of one call, beside other callers' photos in one batch.

The thresholds need no other model, so each photo has its own. The model and the size of the tensors are the
detector's; a call names those that it wants, and a detector with others refuses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

from actors.images import PreparedImage
from actors.settings import DetectorSettings


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """The settings that change answers and need another model or other tensors.

    Attributes:
        model: the model's name in the catalogue.
        model_path: the file that is used instead; empty for none.
        input_size: the longer side of the tensor, in pixels.
        digest: sha256 of the weights, hex; empty where nobody has looked at them.
    """

    model: str
    model_path: str
    input_size: int
    digest: str = ""

    @classmethod
    def of(cls, settings: DetectorSettings, digest: str = "") -> Self:
        """The choice in a detector's settings; `digest` is that of the weights, where it is known."""
        path = "" if settings.model_path is None else str(settings.model_path)
        return cls(settings.model, path, settings.input_size, digest)

    @property
    def variables(self) -> str:
        """The variables that make this choice, as they are set in a shell."""
        named = f"MODEL_PATH={self.model_path}" if self.model_path else f"MODEL={self.model}"
        return f"RAYFACE_DETECTOR__{named} RAYFACE_DETECTOR__INPUT_SIZE={self.input_size}"

    def fits(self, other: ModelChoice) -> bool:
        """Whether both give the same answers."""
        return not self.difference_to(other)

    def difference_to(self, placed: ModelChoice) -> str:
        """How a detector's choice differs from this one, with both values; empty if it does not.

        Two paths of one file are the same, and one path of two files is not, where both digests are known.
        """
        differences = []
        same_names = (self.model_path or self.model) == (placed.model_path or placed.model)
        if self.digest and placed.digest:
            if self.digest != placed.digest:
                theirs, ours = placed._named(not same_names), self._named(not same_names)
                differences.append(f"{theirs}, and {ours} is wanted")
        elif not same_names:
            differences.append(f"{placed._named()}, and {self._named()} is wanted")
        if self.input_size != placed.input_size:
            differences.append(f"detector.input_size = {placed.input_size}, and {self.input_size} is wanted")
        return "; ".join(differences)

    def _named(self, is_enough: bool = True) -> str:
        """The model with its setting; with its digest too, if the name alone is not enough."""
        name = f"model_path = {self.model_path}" if self.model_path else f"model = {self.model}"
        return f"detector.{name}" + ("" if is_enough else f" (sha256 {self.digest[:12]}…)")


@dataclass(frozen=True, slots=True)
class CallSettings:
    """The settings of one call.

    Attributes:
        score_threshold: the least score of a face, 0..1; None takes that of the model's family.
        nms_threshold: the greatest IoU of two faces that are both kept; None takes that of the family.
        max_faces: faces kept for each image, best first.
        wanted: the model and the tensors that the answers must come from; None takes the detector's.

    Raises:
        ValueError: a value is out of its range.
    """

    score_threshold: float | None = None
    nms_threshold: float | None = None
    max_faces: int = 1000
    wanted: ModelChoice | None = None

    def __post_init__(self) -> None:
        if self.score_threshold is not None and not 0 < self.score_threshold < 1:
            raise ValueError(f"score_threshold must be between 0 and 1, and is {self.score_threshold}.")
        if self.nms_threshold is not None and not 0 < self.nms_threshold <= 1:
            raise ValueError(f"nms_threshold must be above 0 and at most 1, and is {self.nms_threshold}.")
        if self.max_faces < 1 or self.max_faces != int(self.max_faces):
            raise ValueError(f"max_faces must be a whole number from 1 on, and is {self.max_faces}.")

    @classmethod
    def of(cls, settings: DetectorSettings) -> Self:
        """What a detector's settings say of each call; they want no model."""
        return cls(settings.score_threshold, settings.nms_threshold, settings.max_faces)


#: Every threshold is that of the model's family.
OF_FAMILY = CallSettings()


class AskedImage(NamedTuple):
    """A photo in a batch, with the settings of its call."""

    image: PreparedImage
    settings: CallSettings
