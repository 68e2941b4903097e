"""How the question travels: the only room that speaks Ray. May import `actors`; never `app`."""

from cluster.client.blocking import BlockingFaceClient
from cluster.client.face_client import FaceClient
from cluster.client.status import ClientStatus
from cluster.errors import ClusterUnavailable, ConfigurationError, DetectorNotReady, RayfaceError
from cluster.settings import Settings, load_settings, own_config

__all__ = [
    "BlockingFaceClient",
    "ClientStatus",
    "ClusterUnavailable",
    "ConfigurationError",
    "DetectorNotReady",
    "FaceClient",
    "RayfaceError",
    "Settings",
    "load_settings",
    "own_config",
]
