"""The backend's HTTP server: takes photos, answers outcomes as JSON. It is small: your library has its own.

POST /faces      an encoded photo as the body; the answer is its outcome
GET  /           a page: the state of everything, the dashboard's panels, and a photo to try
GET  /panels     the dashboard's panels as figures, from Prometheus
GET  /health     the health of the detector that would be asked next
GET  /status     the state of the client: cluster, circuits, fallback
GET  /healthz    200 as long as this process answers
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from actors.faces import Failed, Outcome
from app.face_service import FaceService
from app.panels import Panels
from cluster import RayfaceError

_log = logging.getLogger("rayface.app")
_MAX_BYTES = 200_000_000
_PAGE = Path(__file__).with_name("page.html")


def handler(service: FaceService, panels: Panels) -> type[BaseHTTPRequestHandler]:
    """The class that handles the requests for one service."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/healthz":
                self._answer(200, {"ok": True})
            elif self.path == "/status":
                self._answer(200, service.status().as_dict())
            elif self.path == "/":
                self._send(200, _PAGE.read_bytes(), "text/html; charset=utf-8")
            elif self.path == "/panels":
                self._answer(200, panels.figures())
            elif self.path == "/health":
                try:
                    self._answer(200, asdict(service.health()))
                except RayfaceError as error:
                    self._answer(503, {"error": str(error)})
            else:
                paths = "/, /faces, /panels, /health, /status and /healthz"
                self._answer(404, {"error": f"There is nothing at {self.path}. There are {paths}."})

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            if self.path != "/faces" or not 0 < size <= _MAX_BYTES:
                self._answer(400, {"error": f"POST a photo of at most {_MAX_BYTES} bytes to /faces."})
                return
            outcome = service.faces_of(self.rfile.read(size))
            self._answer(
                {"detected": 200, "rejected": 422}.get(outcome.status, 503),
                outcome.as_dict(),
                **_retry_after(outcome),
            )

        def _answer(self, status: int, body: Any, **headers: str) -> None:
            self._send(status, json.dumps(body).encode(), "application/json", **headers)

        def _send(self, status: int, body: bytes, kind: str, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            _log.debug(format, *arguments)

    return Handler


def _retry_after(outcome: Outcome) -> dict[str, str]:
    if isinstance(outcome, Failed) and outcome.retry_after_s is not None:
        return {"Retry_After": str(math.ceil(outcome.retry_after_s))}
    return {}


def main() -> None:
    """Serve until the process is ended."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    service = FaceService()
    # In a container, every interface is the container's own; compose publishes the port on loopback alone.
    host = os.environ.get("RAYFACE_APP_HOST", "0.0.0.0")
    port = int(os.environ.get("RAYFACE_APP_PORT", "8000"))
    panels = Panels(os.environ.get("RAYFACE_APP_PROMETHEUS", "http://127.0.0.1:9090"))
    server = ThreadingHTTPServer((host, port), handler(service, panels))
    try:
        # Ctrl+C is the ordinary end.
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    finally:
        service.close()


if __name__ == "__main__":
    main()
