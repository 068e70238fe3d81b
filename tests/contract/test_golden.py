"""Every golden case, in this process, through agents, and some as processes of their own."""

import pytest

from tests.contract import cases, deviations
from tests.contract.cases import Case
from tests.contract.playback import WAYS, Playback, StartService
from tests.contract.workspace import Workspace

# Areas whose commands read or control a loop: what an agent tells must be what the files tell.
REMOTE_AREAS = ("snapshot", "poll", "reconcile", "control")
# Contract D.3: over HTTP confirmation times cannot be set, and an effect that never comes is awaited 30 s.
SLOW_THROUGH_A_SERVICE = [("control-ambiguous-and-failed", "http")]
# One case of each command, to know that entry point, imports and streams work outside of tests.
SPAWNED = (
    "alert-dispatch",
    "confirm-predicates",
    "control-cancel-confirmed",
    "health-defaults",
    "poll-resume",
    "profile-drift",
    "project-with-events",
    "reconcile-healthy-passes",
    "sink-config",
    "snapshot-failures",
    "status-static",
    "telemetry-summary",
    "threshold-profile",
)


def recorded() -> list[Case]:
    return [cases.load(name) for name in cases.names()]


def local_names() -> list[str]:
    """Cases without a service of their own; of those with a scripted one, the sink is the service."""
    return [case.name for case in recorded() if case.service is None]


def remote_plays() -> list[tuple[str, str]]:
    """(case, way) of all cases without any service that touch a loop."""
    return [
        (case.name, way)
        for case in recorded()
        for way in WAYS
        if way != "local"
        and case.area in REMOTE_AREAS
        and case.service is None
        and not cases.has_scripted_service(case)
        and (case.name, way) not in SLOW_THROUGH_A_SERVICE
    ]


def service_plays() -> list[tuple[str, str]]:
    """(case, way) of cases with a service of their own. What is asked in HTTP goes that way only."""
    return [
        (case.name, way)
        for case in recorded()
        for way in WAYS
        if way != "local"
        and case.service is not None
        and not case.slow
        # Its own words are HTTP.
        and (way == "http" or case.area != "http")
    ]


def slow_plays_of() -> list[tuple[str, str]]:
    """(case, way) of the plays that wait; each is played in one way only."""
    return [(case.name, "http") for case in recorded() if case.slow] + SLOW_THROUGH_A_SERVICE


@pytest.mark.parametrize("name", local_names())
def test_case_matches_the_recording_when_read_locally(name: str, workspace: Workspace) -> None:
    Playback(cases.load(name), workspace).play()


@pytest.mark.parametrize(("name", "way"), remote_plays())
def test_case_matches_the_recording_when_played_through_an_agent(
    name: str, way: str, workspace: Workspace, start_agent: StartService
) -> None:
    Playback(cases.load(name), workspace, way=way, start=start_agent).play()


@pytest.mark.parametrize(("name", "way"), service_plays())
def test_case_with_a_service_matches_the_recording(
    name: str, way: str, workspace: Workspace, start_agent: StartService
) -> None:
    Playback(cases.load(name), workspace, way=way, start=start_agent).play()


@pytest.mark.parametrize("name", SPAWNED)
def test_case_matches_the_recording_when_run_as_processes(name: str, workspace: Workspace) -> None:
    Playback(cases.load(name), workspace, spawn=True).play()


def test_every_remedy_belongs_to_a_case_that_shows_the_weakness() -> None:
    for name, number in [*deviations.REMEDIES, *deviations.INSTEAD, *deviations.INSTEAD_OVER_HTTP]:
        case = cases.load(name)
        assert case.quirks, name
        assert number < len(case.steps), name
