"""The cluster's token: makes it, and keeps it where Ray looks; never in a log or an argument."""

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
    """The file that holds the token, or would hold it."""
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
    """Whether the text can be a token: at least 16 printable ASCII characters without blanks."""
    return len(text) >= 16 and text.isascii() and text.isprintable() and " " not in text


def kept_token() -> str:
    """The token in the file, even if a variable wins over it; "" if the file cannot be read."""
    try:
        return token_file().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        return ""


def have_token() -> tuple[str, bool]:
    """Read the token, or make one if there is none yet; returns it, and whether it is new."""
    if os.environ.get(_VALUE) or token_file().is_file():
        return read_token(), False
    token = secrets.token_hex(32)
    save_token(token)
    return token, True


def save_token(token: str) -> Path:
    """Keep the token in Ray's token file, which only this user can read; returns the file.

    Raises:
        ConfigurationError: it is no token, or the file cannot be written.
    """
    token = token.strip()
    if not is_token(token):
        raise ConfigurationError(
            "That is no token: it needs at least 16 letters and digits, and no blanks. `rayface token show` "
            "on the head shows the right one."
        )
    path = token_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The file is private from its first moment on; a chmod afterwards would come too late.
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(token)
        draft.replace(path)
    except OSError as error:
        raise ConfigurationError(
            f"The token cannot be kept in {path}: {error.strerror}. Name another file in RAY_AUTH_TOKEN_PATH."
        ) from error
    return path
