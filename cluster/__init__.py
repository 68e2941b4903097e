"""How the question travels: the only room that speaks Ray. May import `actors`; never `app`."""

from cluster.bridge import BlockingFaceClient
from cluster.client import FaceClient
from cluster.errors import ClusterUnavailable, ConfigurationError, DetectorNotReady, RayfaceError
from cluster.settings import Settings, load_settings, own_config
from cluster.standing import Standing

__all__ = [
    "BlockingFaceClient",
    "ClusterUnavailable",
    "ConfigurationError",
    "DetectorNotReady",
    "FaceClient",
    "RayfaceError",
    "Settings",
    "Standing",
    "load_settings",
    "own_config",
]
