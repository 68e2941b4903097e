"""The backend's door: photos in by HTTP, outcomes out as JSON. Small on purpose; a photo library has its own.

POST /faces      an encoded photo as the body → its outcome
GET  /health     how the detector is that would be asked next
GET  /healthz    200 as long as this process answers
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from app.face_service import FaceService
from cluster import RayfaceError

_log = logging.getLogger("rayface.app")
_MOST_BYTES = 200_000_000
_ASK_S = 5.0
#: Longer than Ray takes to start a detector again, so that a restart costs no connection.
_LOST_S = 30.0


class LateService:
    """A `FaceService` that is connected in the background, and again after the cluster was lost for long.

    A driver whose head was replaced does not always find its way back by itself; a new one does.
    """

    def __init__(self) -> None:
        self._service: FaceService | None = None
        self.reason = "connecting to the cluster"
        self._ended = threading.Event()
        self._keeping = threading.Thread(target=self._keep, name="connect", daemon=True)
        self._keeping.start()

    def get(self) -> FaceService | None:
        """The service, or None while there is nobody to ask (`reason` says why)."""
        return self._service

    def close(self) -> None:
        """Leave the cluster."""
        self._ended.set()
        self._keeping.join(_ASK_S)
        if self._service is not None:
            self._service.close()

    def _keep(self) -> None:
        heard = time.monotonic()
        while not self._ended.is_set():
            try:
                if self._service is None:
                    self._service = FaceService()
                    _log.info("Connected.")
                self._service.health()
                heard = time.monotonic()
            except RayfaceError as error:
                self._tell(str(error))
                if self._service is not None and time.monotonic() - heard > _LOST_S:
                    _log.warning("The detector was silent for %.0f s; connecting anew.", _LOST_S)
                    lost, self._service = self._service, None
                    lost.close()
            self._ended.wait(_ASK_S)

    def _tell(self, reason: str) -> None:
        if reason != self.reason:
            _log.warning("No detector: %s", reason)
        self.reason = reason


def handler(late: LateService) -> type[BaseHTTPRequestHandler]:
    """The requests' handler for one service."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/healthz":
                return self._answer(200, {"ok": True})
            if self.path != "/health":
                return self._answer(404, {"error": "There are /faces, /health and /healthz."})
            service = late.get()
            if service is None:
                return self._answer(503, {"error": late.reason})
            try:
                return self._answer(200, asdict(service.health()))
            except RayfaceError as error:
                return self._answer(503, {"error": str(error)})

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            if self.path != "/faces" or not 0 < size <= _MOST_BYTES:
                return self._answer(400, {"error": f"POST a photo of at most {_MOST_BYTES} bytes to /faces."})
            photo = self.rfile.read(size)
            service = late.get()
            if service is None:
                return self._answer(503, {"error": late.reason})
            try:
                outcome = service.faces_of(photo)
            except Exception as error:
                # The service was closed under our hands, to be connected anew.
                return self._answer(
                    503, {"error": f"The connection is being renewed; ask again. ({error!r})"}
                )
            status = {"detected": 200, "rejected": 422}.get(outcome.status, 503)
            return self._answer(status, outcome.as_dict())

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            encoded = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        def log_message(self, format: str, *arguments: object) -> None:
            _log.debug(format, *arguments)

    return Handler


def main() -> None:
    """Serve until the process is ended."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    late = LateService()
    # Inside a container every interface is the container's own; compose publishes it on loopback.
    host = os.environ.get("RAYFACE_APP_HOST", "0.0.0.0")
    server = ThreadingHTTPServer((host, 8000), handler(late))
    try:
        server.serve_forever()
    finally:
        late.close()


if __name__ == "__main__":
    main()
