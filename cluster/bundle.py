"""An archive for a bug report: what the doctor found, how the cluster is, the ends of logs. Redacted."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from cluster.errors import ConfigurationError
from cluster.examine import facts
from cluster.findings import Finding
from cluster.settings import Settings
from cluster.token import read_token

#: Of each log, its end.
_MOST_BYTES = 200_000
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|KEY|CREDENTIAL", re.IGNORECASE)
_OURS = ("RAYFACE_", "RAY_", "GRPC_", "CUDA_", "ORT_")


def write_bundle(
    target: Path, findings: Sequence[Finding], status: dict[str, Any] | None, settings: Settings
) -> list[str]:
    """Write the archive.

    Args:
        target: a .zip file.
        findings: of the doctor.
        status: of the cluster, as `rayface status --json` has it; None where it could not be asked.
        settings: of this machine.

    Returns:
        What is in it, by name.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    secrets = list(_secrets())
    parts: dict[str, str] = {
        "findings.json": json.dumps([each.as_dict() for each in findings], indent=2),
        "machine.json": json.dumps(facts(), indent=2),
        "settings.json": json.dumps(settings.model_dump(mode="json"), indent=2),
        "variables.txt": "\n".join(_variables()),
    }
    if status is not None:
        parts["status.json"] = json.dumps(status, indent=2)
    for log in _logs(settings):
        parts[f"logs/{log.name}"] = _end_of(log)
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in parts.items():
                archive.writestr(name, redacted(text, secrets))
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written: {error.strerror}.") from error
    return list(parts)


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without these secrets, and without the name of whose home this is."""
    for secret in secrets:
        text = text.replace(secret, "<token>")
    return text.replace(str(Path.home()), "~")


def _secrets() -> Iterable[str]:
    try:
        yield read_token()
    except ConfigurationError:
        return


def _variables() -> list[str]:
    return [
        f"{name}={'<not shown>' if _SECRET.search(name) else value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(_OURS)
    ]


def _logs(settings: Settings) -> list[Path]:
    own = Path(platformdirs.user_log_path("rayface", appauthor=False))
    folders = {settings.head.log_folder or own, settings.join.log_folder or own}
    return sorted(log for folder in folders if folder.is_dir() for log in folder.glob("*.log"))


def _end_of(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _MOST_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"(could not be read: {error.strerror})"
