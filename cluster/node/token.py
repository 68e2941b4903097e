"""The cluster's token: made once, kept where Ray itself looks for it, never on a command line or in a log."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cluster.errors import ConfigurationError

#: The variables of Ray that name it, in the order in which Ray looks.
_VALUE, _PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


class TokenMissing(ConfigurationError):
    """There is no token here that could be used.

    Attributes:
        problem: what is wrong, a sentence.
        advice: what to do, a sentence.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.problem} {self.advice}"


def token_file() -> Path:
    """Where the token is kept, or would be."""
    return Path(os.environ.get(_PATH) or "~/.ray/auth_token").expanduser()


def read_token() -> str:
    """The token that Ray will use here.

    Raises:
        TokenMissing: there is none; says how to get it.
    """
    token = (os.environ.get(_VALUE) or "").strip()
    if token:
        return token
    path = token_file()
    try:
        token = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise TokenMissing(
            f"There is no token to enter the cluster with: {path} cannot be read ({error.strerror}).",
            "On the head, `rayface token show` shows it; here, `rayface token save` keeps it.",
        ) from error
    except UnicodeError as error:
        # PowerShell's `>` writes UTF-16.
        raise TokenMissing(
            f"The token file {path} is not plain text.", "`rayface token save` writes it anew."
        ) from error
    if not token:
        raise TokenMissing(f"The token file {path} is empty.", "`rayface token save` writes it anew.")
    return token


def is_token(text: str) -> bool:
    """Whether it can be one."""
    return len(text) >= 16 and text.isascii() and text.isprintable() and " " not in text


def kept_token() -> str:
    """What the token file holds, whether or not a variable goes before it; empty if nothing can be read."""
    try:
        return token_file().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        return ""


def have_token() -> tuple[str, bool]:
    """The token, made and kept if there is none yet; and whether it is new."""
    if os.environ.get(_VALUE) or token_file().is_file():
        return read_token(), False
    token = secrets.token_hex(32)
    save_token(token)
    return token, True


def save_token(token: str) -> Path:
    """Keep the token where Ray looks, for this user alone.

    Raises:
        ConfigurationError: it is no token, or cannot be written.
    """
    token = token.strip()
    if not is_token(token):
        raise ConfigurationError("That is no token: expected at least 16 letters and digits in one piece.")
    path = token_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made for this user alone from the first moment on, not narrowed afterwards.
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(token)
        draft.replace(path)
    except OSError as error:
        raise ConfigurationError(f"The token cannot be kept in {path}: {error.strerror}.") from error
    return path
