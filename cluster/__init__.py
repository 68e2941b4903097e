"""How the question travels: the only room that speaks Ray. May import `actors`; never `app`.

What a backend needs is here: a client, its settings, the outcomes of images, and the errors that are raised.
Each name is loaded when it is used first: the processes of a cluster and the commands need few of them, and
loading all takes half a second. Neither Ray nor OpenCV nor ONNX Runtime is loaded here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.faces import (
        BucketTiming,
        Detected,
        Face,
        Failed,
        Failure,
        Health,
        Outcome,
        Priority,
        Rejected,
        Rejection,
        Stamp,
        State,
        Times,
    )
    from cluster.client.blocking import BlockingFaceClient
    from cluster.client.face_client import FaceClient
    from cluster.client.status import ClientStatus, DetectorStatus
    from cluster.errors import (
        ClientNotUsable,
        ClusterUnavailable,
        ConfigurationError,
        DetectorNotReady,
        RayfaceError,
    )
    from cluster.settings import Settings, load_settings, own_config

    __version__: str

_MODULES = {
    "BlockingFaceClient": "cluster.client.blocking",
    "ClientNotUsable": "cluster.errors",
    "ClientStatus": "cluster.client.status",
    "ClusterUnavailable": "cluster.errors",
    "ConfigurationError": "cluster.errors",
    "DetectorNotReady": "cluster.errors",
    "DetectorStatus": "cluster.client.status",
    "FaceClient": "cluster.client.face_client",
    "RayfaceError": "cluster.errors",
    "Settings": "cluster.settings",
    "load_settings": "cluster.settings",
    "own_config": "cluster.settings",
}

__all__ = [
    "BlockingFaceClient",
    "BucketTiming",
    "ClientNotUsable",
    "ClientStatus",
    "ClusterUnavailable",
    "ConfigurationError",
    "Detected",
    "DetectorNotReady",
    "DetectorStatus",
    "Face",
    "FaceClient",
    "Failed",
    "Failure",
    "Health",
    "Outcome",
    "Priority",
    "RayfaceError",
    "Rejected",
    "Rejection",
    "Settings",
    "Stamp",
    "State",
    "Times",
    "__version__",
    "load_settings",
    "own_config",
]


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562); every outcome and its parts are in `actors.faces`."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("rayface")
    elif name in __all__:
        value = getattr(import_module(_MODULES.get(name, "actors.faces")), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
