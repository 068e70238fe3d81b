"""A clock that a test sets for one real program, `python clocks.py FILE -m MODULE ...`.

The program's time.time and time.time_ns are those of the machine, and so many seconds more as FILE says; its
monotonic clock is left alone, as it is when somebody sets the clock of a machine.
"""

import os
import runpy
import sys
import time
from pathlib import Path

_WIDTH = 16


class Clock:
    """The clock of programs that are started `under` it. file: is made, with the right time."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.write_text("0".rjust(_WIDTH))

    def set(self, seconds: float) -> None:
        """From now on the programs' time is so many seconds ahead of ours."""
        handle = os.open(self._file, os.O_WRONLY)
        try:
            # In one write, so that nobody reads a half.
            os.write(handle, f"{seconds:g}".rjust(_WIDTH).encode())
        finally:
            os.close(handle)

    def under(self, words: list[str]) -> list[str]:
        """The command line of a Python module, changed so that it lives by this clock."""
        return [words[0], __file__, str(self._file), *words[1:]]


def _run(file: str, arguments: list[str]) -> None:
    handle = os.open(file, os.O_RDONLY)
    time_ns = time.time_ns

    def stepped_ns() -> int:
        return time_ns() + int(float(os.pread(handle, _WIDTH, 0)) * 1e9)

    time.time_ns = stepped_ns
    time.time = lambda: stepped_ns() / 1e9
    flag, module, *rest = arguments
    assert flag == "-m"
    # As `python -m` does it.
    sys.path[0] = os.getcwd()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2:])
