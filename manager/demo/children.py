"""The programs of the demonstration as child processes, and their end."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from manager.demo.ending import Ending
from spritemesh.errors import OpsError

_READY_SECONDS = 20.0
# More than the keeper takes before it uses force.
_STOP_SECONDS = 12.0


class Child(NamedTuple):
    """A running program. errors: the file with its standard error. may_end: before it is told to."""

    name: str
    process: "subprocess.Popen[str]"
    errors: str
    may_end: bool

    def ready(self) -> Any:
        """The document by which it says that it is ready. Raises OpsError `internal_error`."""
        timer = threading.Timer(_READY_SECONDS, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline() if self.process.stdout is not None else ""
        finally:
            timer.cancel()
        if not line.startswith("{"):
            raise OpsError("internal_error", f"the {self.name} did not start: {self.last_words()}")
        return json.loads(line)

    def last_words(self) -> str:
        """The last line of its standard error."""
        with suppress(OSError), open(self.errors, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
            if lines:
                return lines[-1]
        return "it said nothing"


class Children:
    """Starts programs in `directory`, which exists, and ends them all, with the directory.

    The end is the keeper's, a process of its own: it comes when this object is closed, and when this process
    is gone, however that happened.
    """

    def __init__(
        self, directory: str, heartbeat: str, environment: Mapping[str, str], ending: Ending
    ) -> None:
        """heartbeat: a file to remove at the end, "" for none. ending: waits while a program is started."""
        self._directory = directory
        self._ending = ending
        self._environment = environment
        self._children: list[Child] = []
        reading, writing = os.pipe()
        self._told = open(writing, "w", encoding="ascii")  # noqa: SIM115 - closed by close
        self._keeper = subprocess.Popen(
            [sys.executable, "-m", "manager.demo.keeper", directory, heartbeat],
            stdin=reading,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(reading)

    def start(
        self,
        name: str,
        module: str,
        *words: str,
        may_end: bool = False,
        variables: Mapping[str, str] | None = None,
    ) -> Child:
        """A program in a group of its own, so that Ctrl-C reaches only us and the end has an order.

        variables: of its environment, beside those of all.
        """
        errors = os.path.join(self._directory, f"{len(self._children)}.txt")
        # The keeper must hear of whatever runs.
        with self._ending.held():
            with open(errors, "w", encoding="utf-8") as stderr:
                process = subprocess.Popen(
                    [sys.executable, "-m", module, *words],
                    env={**self._environment, **(variables or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    text=True,
                    process_group=0,
                )
            child = Child(name, process, errors, may_end)
            self._children.append(child)
            self._told.write(f"{process.pid}\n")
            self._told.flush()
        return child

    def run(self, module: str, *words: str) -> Any:
        """Run a command to its end; its document, None when it printed none."""
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
            check=False,
        )
        return json.loads(done.stdout) if done.stdout.startswith("{") else None

    def check(self) -> None:
        """Raise OpsError `internal_error` when a program ended that should not have."""
        for child in self._children:
            code = child.process.poll()
            if code is not None and not child.may_end:
                raise OpsError(
                    "internal_error", f"the {child.name} ended unexpectedly with {code}: {child.last_words()}"
                )

    def close(self) -> None:
        """Have the keeper end all, and wait for that."""
        with suppress(OSError):
            self._told.close()
        for child in self._children:
            try:
                child.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:  # there is no keeper any more
                child.process.kill()
                child.process.wait()
            if child.process.stdout is not None:
                child.process.stdout.close()
        self._keeper.wait(_STOP_SECONDS)
