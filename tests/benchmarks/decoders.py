"""Compares decoders of JPEGs of 12 megapixels: processor time for a photo, and what each says of damage.

    python -m tests.benchmarks.decoders [--rounds 5]

Every decoder makes the same small BGR picture of 640 x 480 pixels. They take turns in one process, photo by
photo. Decoders that the project does not need are installed into a folder that is thrown away.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from actors.errors import ImageFault
from actors.images import Limits, prepare
from actors.settings import DetectorSettings
from tests.benchmarks.large_photos import write_large_photos

SMALL = (640, 480)
NUM_PHOTOS = 8
_LIMITS = Limits(10**9, 10**9)
_SHAPES = DetectorSettings().shapes
#: The decoders' packages. pyvips-binary contains libvips; PyTurboJPEG needs the system's libjpeg-turbo 3.
_INSTALLED = ("pyvips", "pyvips-binary", "cffi", "pycparser", "PyTurboJPEG")

Decoder = Callable[[bytes], Any]


def main() -> None:
    """Print one line for each decoder, and one for each kind of damage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    # One thread each: the preparing threads of a client share the cores.
    os.environ["VIPS_CONCURRENCY"] = "1"
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        decoders = _decoders(Path(folder) / "packages")
        photos = [path.read_bytes() for path in write_large_photos(Path(folder), NUM_PHOTOS)]
        times = _times(decoders, photos, rounds)
        ours = times.pop("ours: prepare")
        fastest = min(times.values())
        print(f"processor ms a photo, least of {rounds}, mean of {NUM_PHOTOS} photos of 12 megapixels")
        for name, spent in sorted(times.items(), key=lambda each: each[1]):
            print(f"  {name:<36}{spent * 1000:7.1f}{spent / fastest:7.2f}")
        print(f"  {'ours: prepare':<36}{ours * 1000:7.1f}{ours / fastest:7.2f}   (wanted: at most 1.05)")
        print("what each says of damage")
        for kind, data in _damaged(photos[0]).items():
            print(f"  {kind}")
            for name, decode in decoders.items():
                print(f"    {name:<36}{_said(decode, data)}")


def _times(decoders: dict[str, Decoder], photos: list[bytes], rounds: int) -> dict[str, float]:
    least = {name: [float("inf")] * len(photos) for name in decoders}
    for turn in range(rounds):
        for number, data in enumerate(photos):
            # Each round begins with another decoder, so that none always runs after the same one.
            names = list(decoders)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                begun = time.process_time()
                decoders[name](data)
                least[name][number] = min(least[name][number], time.process_time() - begun)
    return {name: float(np.mean(each)) for name, each in least.items()}


def _damaged(whole: bytes) -> dict[str, bytes]:
    size, scan = len(whole), whole.index(b"\xff\xda") + 14
    return {
        "whole": whole,
        "zeros behind the end": whole + bytes(5000),
        "bytes before the end marker": whole[:-2] + bytes(300) + whole[-2:],
        "no end marker, all pixels there": whole[:-2],
        "middle third zeros": whole[: size // 3] + bytes(size // 3) + whole[size // 3 * 2 :],
        "all picture data zeros": whole[:scan] + bytes(size - scan - 2) + whole[-2:],
        "end marker at a quarter": whole[: size // 4] + b"\xff\xd9" + whole[size // 4 + 2 :],
        "cut at a half": whole[: size // 2],
    }


def _said(decode: Decoder, data: bytes) -> str:
    try:
        pixels = decode(data)
    except ImageFault as fault:
        return f"{fault.reason}: {fault.detail}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:70]}"
    return "nothing" if pixels is not None else "no pixels"


def _decoders(folder: Path) -> dict[str, Decoder]:
    made: dict[str, Decoder] = {
        "ours: prepare": _ours,
        "Pillow draft": _pillow,
        "cv2 reduced": _opencv,
        "simplejpeg": _simplejpeg,
        "simplejpeg, fast DCT and upsampling": _simplejpeg_fast,
    }
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
    installed = subprocess.run([*command, *_INSTALLED], capture_output=True, text=True, check=False)
    if installed.returncode:
        print(f"pyvips, PyTurboJPEG: left out, pip cannot install them: {installed.stderr.strip()[-300:]}")
        return made
    sys.path.append(str(folder))
    for name, make in {"pyvips shrink-on-load": _pyvips, "PyTurboJPEG": _pyturbojpeg}.items():
        try:
            made[name] = make()
        except Exception as error:
            print(f"{name}: left out, it cannot be used here: {str(error).strip().splitlines()[0]}")
    return made


def _shrunk(pixels: Any) -> Any:
    return cv2.resize(pixels, SMALL, interpolation=cv2.INTER_AREA)


def _ours(data: bytes) -> Any:
    return prepare(data, _SHAPES, _LIMITS, 2.0).pixels


def _pillow(data: bytes) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", SMALL)
        return np.ascontiguousarray(_shrunk(np.asarray(image))[:, :, ::-1])


def _opencv(data: bytes) -> Any:
    return _shrunk(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_4))


def _simplejpeg(data: bytes) -> Any:
    import simplejpeg

    return _shrunk(simplejpeg.decode_jpeg(data, "BGR", min_width=SMALL[0], min_height=SMALL[1]))


def _simplejpeg_fast(data: bytes) -> Any:
    import simplejpeg

    fast = {"fastdct": True, "fastupsample": True}
    return _shrunk(simplejpeg.decode_jpeg(data, "BGR", min_width=SMALL[0], min_height=SMALL[1], **fast))


def _pyvips() -> Decoder:
    vips = importlib.import_module("pyvips")

    def decode(data: bytes) -> Any:
        image = vips.Image.thumbnail_buffer(data, SMALL[0], height=SMALL[1])
        return np.ascontiguousarray(image.numpy()[:, :, ::-1])

    return decode


def _pyturbojpeg() -> Decoder:
    turbojpeg = importlib.import_module("turbojpeg").TurboJPEG()

    def decode(data: bytes) -> Any:
        return _shrunk(turbojpeg.decode(data, scaling_factor=(1, 4)))

    return decode


if __name__ == "__main__":
    main()
