"""A command on a terminal of its own: what it draws, and keys for it."""

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading

from tests.harness import secrets
from tests.harness.agents import ROOT, environment
from tests.harness.waiting import wait_for

_SECONDS = 20.0
# Makes standard input the terminal of its own session, then becomes the command.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios;"
    "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
_ALTERNATE_SCREEN = ("\x1b[?1049h", "\x1b[?1049l")


def _environment() -> dict[str, str]:
    """Without the size of another terminal, which would count more than that of this one."""
    kept = {name: value for name, value in environment().items() if name not in {"COLUMNS", "LINES"}}
    return kept | {"TERM": "xterm-256color"}


class OnTerminal:
    """A running command. variables: more of its environment. columns, lines: of its terminal."""

    def __init__(
        self, words: list[str], variables: dict[str, str], *, columns: int = 160, lines: int = 24
    ) -> None:
        self._keys, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.modes = termios.tcgetattr(terminal)
        self._terminal = terminal

        self.process = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *words],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            cwd=ROOT,
            env=_environment() | variables,
        )
        self._drawn: list[bytes] = []
        self._reader = threading.Thread(target=self._gather)
        self._reader.start()

    @property
    def drawn(self) -> str:
        """All that was written so far."""
        return b"".join(self._drawn).decode(errors="replace")

    @property
    def is_drawing(self) -> bool:
        """Whether the alternate screen is shown."""
        return self.drawn.count(_ALTERNATE_SCREEN[0]) > self.drawn.count(_ALTERNATE_SCREEN[1])

    @property
    def modes_now(self) -> list[object]:
        """The terminal's modes."""
        return termios.tcgetattr(self._terminal)

    def wait_for(self, text: str) -> None:
        """Wait until something is drawn from now on."""
        before = len(self.drawn)
        wait_for(lambda: text in self.drawn[before:], what=f"{text}; drawn: {self.drawn[-2000:]}")

    def type(self, keys: str) -> None:
        os.write(self._keys, keys.encode())

    def wait(self) -> int:
        """The exit code."""
        return self.process.wait(_SECONDS)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(_SECONDS)
        os.close(self._terminal)
        self._reader.join(_SECONDS)
        os.close(self._keys)
        secrets.look("what a command drew", self.drawn)

    def _gather(self) -> None:
        while True:
            try:
                piece = os.read(self._keys, 65536)
            except OSError:  # the last end of the terminal is closed
                return
            self._drawn.append(piece)
