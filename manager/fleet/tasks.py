"""The ends of tasks."""

import asyncio


async def ended(task: "asyncio.Task[None]", seconds: float) -> None:
    """Wait until a task has ended by itself, and cancel it if that takes longer than so many seconds.

    Whoever waits here may be cancelled: it is ended then, too, since it would go on for nobody.
    """
    try:
        await asyncio.wait((task,), timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
