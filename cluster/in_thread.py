"""Ray's blocking calls in a thread that is never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


async def in_thread(
    function: Callable[Arguments, Value], *arguments: Arguments.args, **named: Arguments.kwargs
) -> Value:
    """`asyncio.to_thread`, except that whoever is cancelled meanwhile waits for the function to return.

    Leaving the cluster while a thread still asks it something would hold the process up for a minute, and
    then Ray's core would end it.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # looked at, or asyncio would report it as lost
        raise
