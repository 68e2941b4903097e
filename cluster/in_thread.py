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

    A thread that still asks the cluster something while the process leaves it makes Ray start another one,
    or holds the process up for a minute, after which Ray's core ends it.
    """
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise
