"""Makes this process a driver of the Ray cluster in the settings, or of one for this program alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, MutableMapping

from cluster.errors import ClusterUnavailable, ConfigurationError
from cluster.node.addresses import greet, is_loopback
from cluster.node.contract import COMMON, RESOURCE
from cluster.node.token import have_token
from cluster.ray_internals import allow_clusters, find_cluster, without_spare_processes
from cluster.ray_variables import DRIVER_VARIABLES, EMBEDDED_VARIABLES
from cluster.settings import Settings

_GREET_TIMEOUT_S = 10.0
_DRIVER = {**COMMON, **DRIVER_VARIABLES}
# Nothing leaves the machine unasked.
_EMBEDDED = {"RAY_USAGE_STATS_ENABLED": "0", **EMBEDDED_VARIABLES}


def join_or_start(settings: Settings) -> Callable[[], None]:
    """Make this process a driver of the cluster in the settings, or of an embedded one.

    Returns:
        A function that leaves the cluster; an embedded one ends.

    Raises:
        ClusterUnavailable: there is no cluster at the address, the cluster refuses us, or an embedded one
            does not start; says why.
    """
    embedded = settings.cluster.address is None
    if embedded:
        prepare_embedded()
    else:
        _set_defaults(os.environ, _DRIVER)
        address = resolve(settings)
        _stay_on_loopback(os.environ, address.rpartition(":")[0] or address, allow_clusters)
        _greet(settings, address)
    import ray

    try:
        if embedded:
            fewer = contextlib.nullcontext() if settings.cluster.dashboard else without_spare_processes()
            with fewer:
                ray.init(
                    address="local",
                    namespace=settings.cluster.namespace,
                    # One CPU, so that Ray starts no idle workers for every core: only the detector runs here.
                    num_cpus=1,
                    resources={RESOURCE: 1},
                    object_store_memory=settings.cluster.object_store_bytes,
                    include_dashboard=settings.cluster.dashboard,
                    log_to_driver=False,
                    logging_level="ERROR",
                )
        else:
            ray.init(
                address=settings.cluster.address,
                namespace=settings.cluster.namespace,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except Exception as error:
        # Ray raises ConnectionError, RuntimeError, ValueError, AuthenticationError and others here.
        raise ClusterUnavailable(_why_no_cluster(settings, error)) from error
    leave: Callable[[], None] = ray.shutdown
    return leave


def load_ray() -> None:
    """Load Ray with the variables for joining a cluster, before anybody knows which one it is."""
    _set_defaults(os.environ, _DRIVER)
    import ray  # noqa: F401  # for its loading alone


def prepare_embedded(
    environment: MutableMapping[str, str] = os.environ, allow: Callable[[bool], None] = allow_clusters
) -> None:
    """Make the token, and set the variables, that Ray needs to start a cluster for this machine alone.

    Ray would create a token that every user of the machine can read; so a private one is created first.

    Args:
        environment: of this process; what a person has set stays.
        allow: tells Ray, which may be imported already, whether other machines may join.
    """
    # If the token cannot be kept, Ray says itself what it needs.
    with contextlib.suppress(ConfigurationError):
        have_token()
    _set_defaults(environment, _EMBEDDED)
    _stay_on_loopback(environment, "127.0.0.1", allow)


def _set_defaults(environment: MutableMapping[str, str], variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        environment.setdefault(name, value)


def resolve(settings: Settings) -> str:
    """The address that Ray will go to: for "auto", RAY_ADDRESS, or else a head that runs or ran here.

    Raises:
        ClusterUnavailable: there is no such address.
    """
    if settings.cluster.address != "auto":
        return settings.cluster.address or ""
    try:
        return find_cluster()
    except ConnectionError as error:
        raise ClusterUnavailable(_why_no_cluster(settings, error)) from error


def _stay_on_loopback(
    environment: MutableMapping[str, str], host: str, allow: Callable[[bool], None]
) -> None:
    """If the cluster's address is 127.0.0.1, keep Ray there; else it would use this machine's outer address.

    So nothing of an embedded cluster listens on any other interface.
    """
    if not is_loopback(host):
        return
    is_allowed = environment.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0") != "0"
    # Ray reads the variable when it is imported, and this process may have imported it already.
    allow(is_allowed)


def _greet(settings: Settings, address: str) -> None:
    """Refuse an address where nobody reacts at once; Ray itself would go on trying for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return
    if problem := greet(host, int(port), _GREET_TIMEOUT_S):
        unheard = f"nobody answers at {address} ({problem})"
        raise ClusterUnavailable(_why_no_cluster(settings, ConnectionError(unheard)))


def _why_no_cluster(settings: Settings, error: Exception) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".") + "."
    if settings.cluster.address is None:
        return (
            f"The embedded Ray did not start: {line} "
            "Its logs are in the `ray` folder of the system's temporary directory, under session_latest/logs."
        )
    return (
        f"No Ray cluster can be joined at {settings.cluster.address!r}: {line} "
        "Check that its head runs, that the address is right, and that the token is the head's own "
        "(RAY_AUTH_TOKEN, or the file ~/.ray/auth_token)."
    )
