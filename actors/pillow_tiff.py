"""Pillow's TIFF, turned upright without writing its metadata again: one odd tag would refuse the photo."""

from __future__ import annotations

from PIL.Image import Transpose
from PIL.TiffImagePlugin import TiffImageFile

from actors.orientation import ORIENTATION_TAG

_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


class UprightTiff(TiffImageFile):
    """A TIFF whose size and pixels are those of the upright photo, as `TiffImageFile` gives them too."""

    def _setup(self) -> None:
        """Pillow takes only a 16-bit or 32-bit number for an orientation; some programs write one byte."""
        stated = self.tag_v2.get(ORIENTATION_TAG)
        if isinstance(stated, bytes) and len(stated) == 1:
            self.tag_v2[ORIENTATION_TAG] = stated[0]
        super()._setup()

    def load_end(self) -> None:
        """Turn the decoded pixels."""
        turn = _TURNS.get(self.tag_v2.get(ORIENTATION_TAG, 1))
        if turn is not None:
            self.im = self.im.transpose(turn)
            self._size = self.im.size
