"""Which loops the demonstration watches."""

import os
from typing import NamedTuple

from sprite_agent.demo.script import Scenario
from sprite_agent.runtime.layout import list_loop_ids, loop_paths
from spritemesh.errors import OpsError
from spritemesh.ids import validate_loop_id

_HEALTHY_LOOP = "demo"
_WAITING_LOOP, _FAILING_LOOP = "demo-approval", "demo-failing"


# How a demo loop plays: iterations, seconds between events.
_PLAYS = {
    Scenario.HEALTHY: ("0", "0.2"),
    Scenario.APPROVAL: ("1", "0.03"),
    Scenario.CRASHING: ("2", "0.05"),
}


class Loop(NamedTuple):
    """A loop and its sprite.

    repo: absolute, of a loop that was given; "" for a demo loop, which gets one. scenario: of a demo loop.
    """

    loop_id: str
    repo: str = ""
    scenario: Scenario | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """How the demo loop is to play, as flags."""
        if self.scenario is None:
            return ()
        iterations, pace = _PLAYS[self.scenario]
        return "--scenario", self.scenario, "--iterations", iterations, "--pace", pace

    @property
    def heartbeat(self) -> str:
        """Where the agent keeps the heartbeat of a loop that was given."""
        return os.path.join(self.repo, loop_paths(self.loop_id).heartbeat)


def demo_loops(name: str | None) -> list[Loop]:
    """The three of the demonstration, the healthy one first. name: for that one; None: `demo`.

    Raises OpsError `invalid_loop_id`, and `invalid_request` for the name of one of the others.
    """
    healthy = _HEALTHY_LOOP if name is None else validate_loop_id(name, field="--loop")
    if healthy in {_WAITING_LOOP, _FAILING_LOOP}:
        raise OpsError("invalid_request", f"--loop {healthy} is another demo loop", field="--loop")
    return [
        Loop(healthy, scenario=Scenario.HEALTHY),
        Loop(_WAITING_LOOP, scenario=Scenario.APPROVAL),
        Loop(_FAILING_LOOP, scenario=Scenario.CRASHING),
    ]


def given_loop(repo: str, name: str | None) -> Loop:
    """The loop of a repository: the one that is named, else the only one there is.

    Raises OpsError `invalid_loop_id`, `loop_not_found`, `invalid_request`; they tell the loops there are.
    """
    if name:
        validate_loop_id(name, field="--loop")
    found = list_loop_ids(repo)
    known = ", ".join(found[:10]) or "none"
    if name and name not in found:
        raise OpsError("loop_not_found", f"loop {name} is not in {repo}; there: {known}", field="--loop")
    if not name and len(found) != 1:
        raise OpsError("invalid_request", f"--loop is required; loops of {repo}: {known}", field="--loop")
    return Loop(name or found[0], repo)
