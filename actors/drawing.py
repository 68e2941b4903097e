"""Draws faces on a photo for people. Only this module and `images` use cv2."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actors.faces import Face
from actors.images import Pixels

_BOX_BGR = (60, 200, 60)
_POINT_BGR = (40, 60, 230)
_TEXT_BGR = (255, 255, 255)
_JPEG_QUALITY = 90
#: A comment behind the first segment of each copy; by it, a copy is told from a photo.
_COMMENT = b"A copy with the faces drawn, by rayface"
_MARK = b"\xff\xfe" + (len(_COMMENT) + 2).to_bytes(2, "big") + _COMMENT
_MARK_AT = 20


def draw_faces(pixels: Pixels, faces: Sequence[Face]) -> Pixels:
    """Draw each face's box, landmarks and score on a copy of uint8[height, width, 3] in BGR order."""
    import cv2

    drawn = pixels.copy()
    # Lines grow with the photo, so that they are seen when a screen shows it small.
    thick = max(1, round(max(drawn.shape[:2]) / 500))
    for face in faces:
        x1, y1, x2, y2 = (round(value) for value in face.box)
        cv2.rectangle(drawn, (x1, y1), (x2, y2), _BOX_BGR, thick)
        for x, y in face.landmarks:
            cv2.circle(drawn, (round(x), round(y)), thick + 1, _POINT_BGR, cv2.FILLED)
        text, size = f"{face.score:.2f}", thick * 0.45
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, thick)
        top = max(0, y1 - height - below)
        cv2.rectangle(drawn, (x1, top), (x1 + width, top + height + below), _BOX_BGR, cv2.FILLED)
        cv2.putText(
            drawn, text, (x1, top + height), cv2.FONT_HERSHEY_SIMPLEX, size, _TEXT_BGR, thick, cv2.LINE_AA
        )
    return drawn


def write_jpeg(path: Path, pixels: Pixels) -> None:
    """Write uint8[height, width, 3] in BGR order as a marked JPEG; make its folder where it is missing.

    Raises:
        OSError: the file cannot be written.
    """
    import cv2

    path.parent.mkdir(parents=True, exist_ok=True)
    # Not cv2.imwrite: on Windows it cannot write file names outside the local code page.
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not done:
        raise OSError(f"a picture of {pixels.shape[1]} x {pixels.shape[0]} pixels is too large for a JPEG")
    encoded = data.tobytes()
    path.write_bytes(encoded[:_MARK_AT] + _MARK + encoded[_MARK_AT:])


def is_drawn(path: Path) -> bool:
    """Whether a file is a copy that `write_jpeg` wrote.

    Raises:
        OSError: the file cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(_MARK_AT + len(_MARK)).endswith(_MARK)
