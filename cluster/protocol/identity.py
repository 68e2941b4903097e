"""Which rayface a process has, and whether another one can be talked to: the first words of each message.

Every message between installations begins with the sender's protocol tag. A receiver whose tag is another one
reads nothing of the message. It answers with its identity, in a form that never changes.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Any, Self

from cluster.errors import VersionSkew
from cluster.protocol.rows import ALL_TYPES
from cluster.protocol.schema import digest_of

#: Raised by hand when the meaning of a value changes and its name and type stay.
PROTOCOL = 1

_MAGIC = b"rayface "
_SKEW = b"rayface-skew "
_ORDER = (
    "Upgrade the head first, then the machines that lend devices, then the backends "
    "(docs/two-machines.md says how)."
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which rayface a process has.

    Attributes:
        version: of the package; empty if it is not known.
        tag: protocol number and digest of the schema, as in "1-0123456789ab"; empty for a rayface of a time
            before there was one.
        host: its machine.
    """

    version: str
    tag: str
    host: str

    @classmethod
    def of(cls, values: object, host: str = "") -> Self:
        """The identity in JSON-ready values; what is missing or no text is empty."""
        known = values if isinstance(values, Mapping) else {}
        texts = (str(known.get(name) or "")[:100] for name in ("version", "tag", "host"))
        version, tag, named = texts
        return cls(version, tag, named or host)

    def as_dict(self) -> dict[str, Any]:
        """The identity as JSON-ready values."""
        return asdict(self)

    def __str__(self) -> str:
        return f"rayface {self.version or 'of an unknown version'} (protocol {self.tag or 'older than 1'})"


@cache
def identity() -> Identity:
    """The identity of this process."""
    try:
        version = version_of("rayface")
    except PackageNotFoundError:
        version = ""
    return Identity(version, f"{PROTOCOL}-{digest_of(ALL_TYPES)}", platform.node())


_LABELS = {"version": "rayface-version", "tag": "rayface-protocol"}


def labels() -> dict[str, str]:
    """The labels by which a node of Ray tells which rayface it has."""
    ours = identity().as_dict()
    # Ray takes letters, digits, dots, hyphens and underlines. What a local version has besides is shown so.
    values = {label: re.sub(r"[^A-Za-z0-9._-]", "-", ours[name])[:63] for name, label in _LABELS.items()}
    return {label: value for label, value in values.items() if value}


def identity_of_labels(found: Mapping[str, str], host: str) -> Identity | None:
    """Which rayface a node has, by its labels; None if it has none of ours."""
    if not any(label in found for label in _LABELS.values()):
        return None
    return Identity.of({name: found.get(label, "") for name, label in _LABELS.items()}, host)


def check_same(theirs: Identity, ours: Identity | None = None) -> None:
    """Compare another process's identity with this one's.

    Raises:
        VersionSkew: values of the one could be misread by the other; says both versions and what to upgrade.
    """
    ours = ours or identity()
    if theirs.tag != ours.tag:
        raise VersionSkew(skew_sentence(theirs, ours))


def skew_sentence(theirs: Identity, ours: Identity) -> str:
    """What differs, and what to upgrade first."""
    return " ".join(skew_said(theirs, ours))


def skew_said(theirs: Identity, ours: Identity) -> tuple[str, str]:
    """What differs, as a sentence; and what to upgrade first, as one or two."""
    there = theirs.host or "the other machine"
    here = ours.host or "this machine"
    if there == here:
        here, there = f"this process on {here}", f"the other one on {there}"
    evidence = f"{here} has {ours}, and {there} has {theirs}: they would misread each other (version_skew)."
    age = _compared(theirs, ours)
    if age < 0:
        return evidence, f"Upgrade {there}. {_ORDER}"
    if age > 0:
        return evidence, f"Upgrade {here} to {theirs.version}. {_ORDER}"
    same = "Both have the same number, so one of them was changed: install the same release on both."
    return evidence, same


def _compared(theirs: Identity, ours: Identity) -> int:
    """-1 if theirs is older than ours, 1 if it is newer, 0 if nobody can tell."""
    # Loaded here: nobody needs it while all is well.
    from packaging.version import InvalidVersion, Version

    if not theirs.tag:
        return -1
    try:
        one, other = Version(theirs.version), Version(ours.version)
    except InvalidVersion:
        return 0
    return (one > other) - (one < other)


@cache
def _prefix() -> bytes:
    return _MAGIC + identity().tag.encode() + b" "


def framed(payload: bytes) -> bytes:
    """A message with the first words before it."""
    return _prefix() + payload


def skew_reply() -> bytes:
    """The answer to a message of another protocol: this process's identity."""
    return _SKEW + json.dumps(identity().as_dict()).encode()


def unframed(message: object, host: str = "") -> memoryview:
    """A message without its first words.

    Args:
        message: as it came.
        host: the sender's machine, if it is known.

    Raises:
        VersionSkew: it is a message of another protocol, or of none.
    """
    if isinstance(message, bytes):
        prefix = _prefix()
        if message.startswith(prefix):
            return memoryview(message)[len(prefix) :]
        raise VersionSkew(skew_sentence(_sender(message, host), identity()))
    # Before there was a protocol, values travelled as Python's own objects.
    raise VersionSkew(skew_sentence(Identity("", "", host), identity()))


def _sender(message: bytes, host: str) -> Identity:
    """Who sent a message of another protocol, as far as it tells."""
    if message.startswith(_SKEW):
        try:
            return Identity.of(json.loads(message[len(_SKEW) :]), host)
        except ValueError:
            return Identity("", "", host)
    words = message[:100].split(b" ", 2)
    tag = words[1].decode("ascii", "replace") if len(words) > 1 and words[0] + b" " == _MAGIC else ""
    return Identity("", tag, host)
