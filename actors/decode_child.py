"""The program of a decode worker: takes encoded photos from its standard input, and answers small ones.

It runs apart, so that it can be ended. `actors/decode_worker.py` starts it.
"""

from __future__ import annotations

import importlib
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, BinaryIO

from actors.decode_frames import pack_photo, read_frame, unpack_order, write_frame
from actors.errors import ImageFault
from actors.faces import Rejection
from actors.images import PreparedImage, prepare
from actors.process_limits import ProcessLimits, end_first_without_memory

#: Address space beyond what decoding is allowed: threads of decoders, and gaps between what malloc frees.
_SPARE_BYTES = 300_000_000
#: Loaded before the limit is set, so that their own memory does not count.
_DECODERS = ("cv2", "simplejpeg", "PIL.Image", "PIL.ImageOps", "pillow_heif")


def main(max_decode_bytes: int) -> None:
    """Serve one owner, until it hangs up.

    Args:
        max_decode_bytes: memory that decoding one photo may take.
    """
    # Ctrl+C is for the owner, which ends this process by hanging up.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    # What a library prints must not get between the answers.
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    for module in _DECODERS:
        # pillow-heif is an extra.
        with suppress(ImportError):
            importlib.import_module(module)
    limits = ProcessLimits(max_decode_bytes + _SPARE_BYTES)
    end_first_without_memory()
    write_frame(answers, {"ready": os.getpid()})
    os.dup2(nowhere, 2)
    waiting: queue.SimpleQueue[tuple[dict[str, Any], bytes]] = queue.SimpleQueue()
    threading.Thread(target=_read_orders, args=(orders, waiting.put), daemon=True).start()
    while True:
        header, encoded = waiting.get()
        _answer(answers, header, encoded, limits)


def _read_orders(orders: BinaryIO, put: Callable[[tuple[dict[str, Any], bytes]], None]) -> None:
    """Runs in a thread, so that the end of the owner ends this process in the middle of a photo too."""
    try:
        while True:
            put(read_frame(orders, sys.maxsize))
    finally:
        os._exit(0)


def _answer(answers: BinaryIO, header: dict[str, Any], encoded: bytes, limits: ProcessLimits) -> None:
    shapes, photo_limits, max_enlargement = unpack_order(header)
    begun = time.process_time()
    limits.allow_cpu(photo_limits.max_decode_s)
    try:
        photo: PreparedImage | ImageFault = prepare(encoded, shapes, photo_limits, max_enlargement)
    except ImageFault as fault:
        photo = fault
    except MemoryError:
        detail = (
            f"Decoding the image takes more than {photo_limits.max_decode_bytes:,} bytes of memory "
            "(detector.max_decode_bytes). Send a smaller one."
        )
        photo = ImageFault(Rejection.TOO_COSTLY, detail)
    except Exception as error:
        write_frame(answers, {"unforeseen": repr(error)})
        return
    spent = {"cpu_s": time.process_time() - begun}
    if isinstance(photo, ImageFault):
        write_frame(answers, {"reason": str(photo.reason), "detail": photo.detail} | spent)
    else:
        write_frame(answers, pack_photo(photo) | spent, photo.pixels.data.cast("B"))
