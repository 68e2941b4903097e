"""An archive for a bug report: the doctor's findings, the cluster's status, ends of logs; all redacted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from cluster.doctor.host import facts
from cluster.errors import ConfigurationError
from cluster.node.findings import Finding
from cluster.node.token import kept_token
from cluster.settings import Settings

#: At most so much of each part, so much of each log's end, and so many logs, the newest ones.
_MAX_PART_CHARACTERS = 1_000_000
_MAX_LOG_BYTES = 200_000
_MAX_LOGS = 12
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|PASS$|PWD|KEY|CREDENTIAL|COOKIE|PRIVATE", re.IGNORECASE)
_OURS = ("RAYFACE_", "RAY_", "GRPC_", "CUDA_", "ORT_")
#: Values of 8 characters or more are redacted: shorter ones are common words. No secret is longer than 4,000.
_MIN_SECRET_CHARACTERS, _MAX_SECRET_CHARACTERS = 8, 4000

_PHOTO = r"\.(?:jpe?g|png|webp|bmp|tiff?|gif|heic|heif|avif)\b"
#: Names of photos: a path with its blanks up to the suffix, or one word with a suffix. The lengths are
#: bounded, because a search for words of any length takes quadratic time on a long line.
_PHOTO_NAMES = re.compile(
    rf"(?:[A-Za-z]:|~|\.{{1,2}})?[\\/][^\n\"'<>|:]{{0,300}}?{_PHOTO}"
    rf"|[^\s\"'<>|\\/=:,\[\]()]{{1,200}}{_PHOTO}",
    re.IGNORECASE,
)
_HAS_PHOTO = re.compile(_PHOTO, re.IGNORECASE)
#: Home folders, also with the doubled backslashes of JSON.
_HOMES = re.compile(
    r"(/home/|/Users/|[A-Za-z]:\\{1,2}Users\\{1,2})([^/\\\n\"':;,]+(?=[/\\])|[^/\\\s\"':;,]+)"
)
_LOGIN = re.compile(r"(://)[^/\s@]+@")


def write_bundle(
    target: Path, findings: Sequence[Finding], status: dict[str, Any] | None, settings: Settings
) -> list[str]:
    """Write the archive.

    Args:
        target: a .zip file.
        findings: those of the doctor.
        status: what `rayface status --json` prints; None if the cluster could not be asked.
        settings: of this machine.

    Returns:
        The names of the files in the archive.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    hidden = secrets()
    parts: dict[str, str] = {
        "findings.json": json.dumps([each.as_dict() for each in findings], indent=2),
        "machine.json": json.dumps(facts(), indent=2),
        "settings.json": json.dumps(settings.model_dump(mode="json"), indent=2),
        "variables.txt": "\n".join(_variables()),
    }
    if status is not None:
        parts["status.json"] = json.dumps(status, indent=2, default=str)
    for number, log in enumerate(_logs(settings), start=1):
        parts[f"logs/{number:02d}-{log.name}"] = _end_of(log)
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in parts.items():
                archive.writestr(name, redacted(_cut(text), hidden))
    except OSError as error:
        raise ConfigurationError(
            f"{target} cannot be written: {error.strerror}. Name a file in a folder that exists."
        ) from error
    return list(parts)


def redacted(text: str, hidden: Iterable[str]) -> str:
    """The text without these secrets, without names of photos, and without users' names in home folders."""
    for secret in hidden:
        text = text.replace(secret, "<secret>")
    text = _LOGIN.sub(r"\1<secret>@", text)
    for home in (str(Path.home()), json.dumps(str(Path.home()))[1:-1]):
        # A home such as "/" would match every path.
        if len(home) > 3:
            text = text.replace(home, "~")
    text = _HOMES.sub(r"\1<user>", text)
    lines = text.split("\n")
    return "\n".join(_PHOTO_NAMES.sub("<photo>", each) if _HAS_PHOTO.search(each) else each for each in lines)


def secrets() -> list[str]:
    """Values that must not be in an archive: the token, and variables with the name of a secret."""
    found = {kept_token(), (os.environ.get("RAY_AUTH_TOKEN") or "").strip()}
    found |= {value for name, value in os.environ.items() if _SECRET.search(name)}
    # The longest first: one secret may be part of another.
    return sorted((each for each in found if len(each) >= _MIN_SECRET_CHARACTERS), key=len, reverse=True)


def _variables() -> list[str]:
    return [
        f"{name}={'<not shown>' if _SECRET.search(name) else value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(_OURS)
    ]


def _cut(text: str) -> str:
    """Cut a long text at a blank, so that no half of a secret, which nothing would redact, stays."""
    if len(text) <= _MAX_PART_CHARACTERS:
        return text
    kept = text[:_MAX_PART_CHARACTERS]
    edge = max(kept.rfind(blank, -_MAX_SECRET_CHARACTERS) for blank in "\n \t")
    return f"{kept[: edge if edge > 0 else -_MAX_SECRET_CHARACTERS]}\n(cut here)"


def _logs(settings: Settings) -> list[Path]:
    """The logs of `head` and `join` on this machine, the newest first."""
    own = Path(platformdirs.user_log_path("rayface", appauthor=False))
    folders = {settings.head.log_folder or own, settings.join.log_folder or own}
    by_age: list[tuple[float, Path]] = []
    for folder in folders:
        with contextlib.suppress(OSError):
            by_age += [(log.stat().st_mtime, log) for log in folder.glob("*.log") if log.is_file()]
    return [log for _, log in sorted(by_age, reverse=True)[:_MAX_LOGS]]


def _end_of(log: Path) -> str:
    try:
        with log.open("rb") as file:
            start = max(0, log.stat().st_size - _MAX_LOG_BYTES)
            file.seek(start)
            text = file.read(_MAX_LOG_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return f"(could not be read: {error.strerror})"
    # The first line is cut, and perhaps a secret in it; so it is left out.
    return text.partition("\n")[2] if start else text
