"""The end of a program that serves, as the system asks for it."""

import asyncio
import os
import signal


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set; a second one of them ends the process at once, with 128 + its
    number."""
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return stop
