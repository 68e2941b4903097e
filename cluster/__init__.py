"""How the question travels: the only room that speaks Ray. May import `actors`; never `app`.

What a backend needs is here: a client, its settings, the outcomes of images, and the errors that are raised.
Importing it loads neither Ray nor OpenCV nor ONNX Runtime; they come when they are used.
"""

from importlib.metadata import version

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

__version__ = version("rayface")

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
