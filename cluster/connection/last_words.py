"""What the last words of a driver process mean, where Ray's own do not say what to do."""

from __future__ import annotations

from cluster import ray_internals
from cluster.ray_internals import NodePorts


def why_not_joined(why: str, address: str | None) -> str:
    """Why a process ended before it had joined, in a sentence or two.

    Args:
        why: how it ended, with its last words.
        address: of the cluster, HOST:PORT; None for an embedded one.
    """
    if ray_internals.lacks_ports(why):
        return no_room(ray_internals.node_ports(address or ""))
    return f"The process that joins the cluster ended before it had joined: {why}."


def no_room(ports: NodePorts | None) -> str:
    """What to say to a client for which Ray has no port left.

    Args:
        ports: of the Ray of this machine that the client would use; None where that is not known.
    """
    if ports is None:
        taken = "all of them are taken"
        setting = "head.num_worker_ports (join.num_worker_ports on a machine that joined)"
    else:
        setting = f"{'head' if ports.is_head else 'join'}.num_worker_ports"
        taken = (
            f"all {ports.last - ports.first + 1} ({ports.first}-{ports.last}) are taken, "
            f"{ports.num_clients} of them by clients"
        )
    return (
        "The cluster has no room for another client: each client takes one of the worker ports of the "
        f"machine by whose Ray it joins, and {taken}. End a client that is not needed; or raise {setting}, "
        "let the new ports in through the firewall, and start Ray there again."
    )
