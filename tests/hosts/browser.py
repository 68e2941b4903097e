"""A real headless Chromium, driven by ChromeDriver's own protocol (W3C WebDriver)."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
#: None of these asks the internet for anything.
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1500,1000",
    "--force-color-profile=srgb",
)


class Browser:
    """One browser window. Use it as a context manager: at the end, the browser and its driver end."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rfbrowser")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]

    def __enter__(self) -> Browser:
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={self._port}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": self._folder.name},
        )
        until = time.monotonic() + 30
        while True:
            try:
                self._ask("GET", "/status")
                break
            except (OSError, urllib.error.URLError):
                assert time.monotonic() < until, "ChromeDriver does not start"
                time.sleep(0.2)
        options = {
            "binary": "/usr/bin/chromium",
            "args": [*_ARGUMENTS, f"--user-data-dir={self._folder.name}/profile"],
        }
        made = self._ask(
            "POST", "/session", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        )
        self._session = f"/session/{made['sessionId']}"
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait(10)
            self._folder.cleanup()

    def open(self, url: str) -> None:
        """Open an address, and wait until the page is loaded."""
        self._ask("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script on the page, and return its result."""
        asked = {"script": script, "args": list(arguments)}
        return self._ask("POST", f"{self._session}/execute/sync", asked)

    def text(self) -> str:
        """All text that the page shows."""
        return str(self.run("return document.body.innerText"))

    def type(self, selector: str, words: str) -> None:
        """Type a text into a field."""
        found = self._ask("POST", f"{self._session}/element", {"using": "css selector", "value": selector})
        self._ask("POST", f"{self._session}/element/{found[_ELEMENT]}/value", {"text": words})

    def click(self, words: str) -> None:
        """Click the first button or link that has this text."""
        clicked = self.run(
            "const all = [...document.querySelectorAll('button, a, [role=tab], [role=button]')];"
            "const said = arguments[0].toLowerCase();"
            "const found = all.find(each => each.innerText.trim().toLowerCase() === said);"
            "found?.click(); return !!found",
            words,
        )
        assert clicked, f"No button or link has the text {words!r}: {self.text()[:500]}"

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """Save a picture of the window as a PNG; with `whole`, first make the window as high as the page."""
        if whole:
            height = self.run("return document.documentElement.scrollHeight")
            self._ask("POST", f"{self._session}/window/rect", {"width": 1200, "height": height + 200})
            height = self.run("return document.documentElement.scrollHeight")
            self._ask("POST", f"{self._session}/window/rect", {"width": 1200, "height": height + 140})
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(base64.b64decode(self._ask("GET", f"{self._session}/screenshot")))

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]
