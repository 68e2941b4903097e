"""The task that makes a photo small on another machine of the cluster."""

from __future__ import annotations

import time

from actors.errors import ImageFault
from actors.images import Pixels, PreparedImage
from actors.sole_worker import SoleWorker
from cluster.deployment.packed import pack_prepared, unpack_prepare_order
from cluster.errors import VersionSkew
from cluster.protocol.identity import skew_reply
from cluster.protocol.rows import Unusable

# Ray runs one task at a time in a process, and keeps the process for further ones.
_sole_worker = SoleWorker()


def prepare_photo(encoded: bytes, packed_order: bytes) -> tuple[bytes, list[Pixels]]:
    """Make an encoded photo small; runs on the machine that has the cores.

    Ray's own process gets no limits, because it has other work too; a costly photo goes to a worker.

    Args:
        encoded: the photo.
        packed_order: how it is made small; see `packed.pack_prepare_order`.

    Returns:
        What became of it, as `packed.pack_prepared` packs it; or the reply to another version.
    """
    begun = time.perf_counter()
    try:
        order = unpack_prepare_order(packed_order)
    except VersionSkew:
        return skew_reply(), []
    made: PreparedImage | Unusable
    try:
        made = _sole_worker.prepare(encoded, order.shapes, order.limits, order.max_enlargement)
    except ImageFault as fault:
        made = Unusable(fault.reason, fault.detail, (time.perf_counter() - begun) * 1000)
    packed = pack_prepared(made)
    return packed.head, packed.pixels
