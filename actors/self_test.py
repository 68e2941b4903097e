"""`python -m actors.self_test DEVICE SETTINGS_JSON`: tests one device in a process of its own.

Prints one JSON object and ends. If the graphics driver crashes, only this process is lost, and the device is
free afterwards.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from actors import golden
from actors.device import Device, opener_for
from actors.errors import DetectorFault, DeviceHeld
from actors.face_model import FaceModel
from actors.guard import Guard
from actors.models import ready_model
from actors.ownership import DeviceLock, Holder
from actors.settings import DetectorSettings


def self_test(device: Device, settings: DetectorSettings) -> dict[str, Any]:
    """Open the device, detect the golden photo in every bucket, and tell how long a run takes.

    Raises:
        DeviceHeld: another process owns the device.
        DetectorFault: the model or the device cannot be used; says why.
    """
    lock = DeviceLock(device.lock_name)
    lock.acquire("rayface's check of the device")
    try:
        begun = time.monotonic()
        opener = opener_for(device, settings)
        wanted = device.provider_name
        model = FaceModel(ready_model(settings), opener, settings, Guard(1), provider=wanted)
        model.warm_up()
        best = model.best_batch(settings.shapes[0])
        ((face, *_),) = model.detect(golden.photos(1, settings.shapes[0]))
        return {
            "ok": True,
            "device": str(device),
            "provider": model.provider,
            "model": model.model.label,
            "start_s": round(time.monotonic() - begun, 2),
            "best_batch": best,
            "ms": round(model.last_run_ms, 2),
            "box": face.box,
            "score": face.score,
            "ms_per_image": round(model.expected_s(best, settings.shapes[0]) / best * 1000, 2),
        }
    finally:
        lock.release()


def main(arguments: Sequence[str]) -> int:
    """Print the result of the test; returns 0 if the device passed, else 1."""
    device, settings = Device.parse(arguments[0]), DetectorSettings.model_validate_json(arguments[1])
    try:
        answer = self_test(device, settings)
    except DetectorFault as fault:
        holder = fault.holder if isinstance(fault, DeviceHeld) else None
        answer = {
            "ok": False,
            "device": str(device),
            "failure": fault.failure,
            "detail": fault.detail,
            "holder": asdict(holder) if isinstance(holder, Holder) else None,
        }
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0 if answer["ok"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
