"""Work in threads whose end is awaited even when the request that wanted it has been given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

Result = TypeVar("Result")


async def run_in_thread(executor: Executor, function: Callable[[], Result]) -> Result:
    """Call a function in a thread and return its result.

    A thread cannot be interrupted. So when this call is cancelled it does not return before the function has,
    unless no thread had begun it: whoever counts a request as running counts its work too.

    Args:
        executor: The threads.
        function: What is called.
    """
    work = executor.submit(function)
    future = asyncio.wrap_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if not work.cancel():
            await asyncio.wait({future})
        raise
