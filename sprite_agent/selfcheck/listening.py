"""Where an agent listens, or would: whether somebody is there, and whether the address can be had."""

import os
import socket
import stat

from sprite_agent.probe.network import Route
from sprite_agent.probe.probing import probe
from sprite_agent.probe.steps import Found, Steps, skip, warn, well
from sprite_agent.probe.target import Target
from spritemesh.errors import OpsError


class Listening:
    """The steps at one address: is somebody there, and then all that can be asked of an agent.

    expected: an agent must answer; else its absence is only warned of. missing: a step of others without
    which it cannot be asked; "": it can.
    """

    def __init__(self, target: Target, steps: Steps, *, expected: bool, missing: str = "") -> None:
        self._target = target
        self._steps = steps
        self._expected = expected
        self._missing = missing
        self._is_there = False

    def run(self) -> None:
        """Take them all."""
        self._steps.take("listening", self._look)
        if self._is_there and self._missing:
            self._steps.take("health", lambda: skip(f"needs {self._missing}"))
        elif self._is_there:
            probe(self._target, self._steps)

    def _look(self) -> Found:
        route = Route(self._target, self._steps.patience)
        route.resolve()
        try:
            route.connection().close()
        except OpsError as error:
            _check_free(self._target)
            told = f"nobody listens ({error.message}), and the address is free"
            if self._expected:
                raise OpsError(error.reason, told) from error
            return warn(error.reason, told, "Start the agent, if it is meant to run here.")
        self._is_there = True
        return well("somebody listens")


def _check_free(target: Target) -> None:
    """Refuse with `address_unavailable` where no agent could listen."""
    if not target.host:
        _check_free_path(target.path)
        return
    family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe_socket:
        # As servers do: connections that have just ended do not count.
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind((target.host, target.port))
        except OSError as error:
            raise OpsError(
                "address_unavailable", f"{target.address} cannot be listened at: {error.strerror}"
            ) from error


def _check_free_path(path: str) -> None:
    directory = os.path.dirname(path)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise OpsError("address_unavailable", f"no socket can be made in {directory}")
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OpsError("address_unavailable", f"{path} is there, and no socket")
