"""What the runner of batches does beside recovering from faults, which `test_recovery.py` tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, cast

from actors.batch_runner import BatchRunner, ImageResult
from actors.call_settings import OF_FAMILY, AskedImage
from actors.errors import DetectorFault
from actors.face_model import FaceModel
from actors.faces import Face, Failure
from actors.images import PreparedImage
from actors.observer import Observer, Run
from tests.fakes import face, prepared

RUN = Run(3, 3, (640, 640), 0.01, 0.001, 0.0, 1)


class Model:
    """Finds one face in each image."""

    table = SimpleNamespace(is_wanted=False)

    def run_batch(
        self, images: Sequence[AskedImage], *, first: bool, begun: Callable[[], None]
    ) -> tuple[list[tuple[Face, ...]], Run]:
        """See `FaceModel.run_batch`."""
        return [(face(number),) for number in range(len(images))], RUN


@dataclass(frozen=True, slots=True)
class Freed(PreparedImage):
    """A photo in shared memory that its backend gave to another photo."""

    @property
    def is_intact(self) -> bool:
        return False


def test_pixels_that_another_photo_has_by_now_get_no_faces() -> None:
    """Nobody waits for that photo any more; its neighbours get their answers."""

    async def no_fault() -> None:
        return None

    async def story() -> Any:
        with ThreadPoolExecutor(1) as threads:
            runner = BatchRunner(
                cast(FaceModel, Model()), threads, no_fault, lambda: None, lambda why: None, Observer()
            )
            first, second, third = (prepared(number) for number in range(3))
            freed = Freed(*(getattr(second, each.name) for each in fields(second)))
            return await runner([AskedImage(each, OF_FAMILY) for each in (first, freed, third)], False)

    before, gone, after = asyncio.run(story())
    assert before == ImageResult((face(0),), RUN)
    assert isinstance(gone, DetectorFault)
    assert gone.failure is Failure.INTERNAL
    assert "given to another photo" in gone.detail
    assert after == ImageResult((face(2),), RUN)
