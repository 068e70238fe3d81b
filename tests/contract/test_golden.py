"""Every golden case, in this process, through an agent, and some as processes of their own."""

import pytest

from tests.contract import cases, deviations
from tests.contract.playback import Playback, Service
from tests.contract.workspace import Workspace

# Areas whose commands read a loop: what an agent tells must be what the files tell.
REMOTE_AREAS = ("snapshot", "poll", "reconcile")
# One case of each command, to know that entry point, imports and streams work outside of tests.
SPAWNED = (
    "health-defaults",
    "poll-resume",
    "profile-drift",
    "project-with-events",
    "reconcile-healthy-passes",
    "snapshot-failures",
    "status-static",
    "telemetry-summary",
    "threshold-profile",
)


def playable() -> list[cases.Case]:
    known = [cases.load(name) for name in cases.names()]
    return [
        case
        for case in known
        if case.area not in deviations.AREAS_NOT_YET and case.name not in deviations.CASES_NOT_YET
    ]


def playable_names(*areas: str) -> list[str]:
    """Names of playable cases, of all areas when none is given, that need no service of their own."""
    return [case.name for case in playable() if case.token is None and (not areas or case.area in areas)]


@pytest.mark.parametrize("name", playable_names())
def test_case_matches_the_recording_when_read_locally(name: str, workspace: Workspace) -> None:
    Playback(cases.load(name), workspace).play()


@pytest.mark.parametrize("name", playable_names(*REMOTE_AREAS))
def test_case_matches_the_recording_when_read_through_an_agent(
    name: str, workspace: Workspace, agent: Service
) -> None:
    Playback(cases.load(name), workspace, service=agent, remote=True).play()


@pytest.mark.parametrize("name", [case.name for case in playable() if case.token is not None])
def test_case_with_a_service_matches_the_recording(name: str, workspace: Workspace, agent: Service) -> None:
    Playback(cases.load(name), workspace, service=agent).play()


@pytest.mark.parametrize("name", SPAWNED)
def test_case_matches_the_recording_when_run_as_processes(name: str, workspace: Workspace) -> None:
    Playback(cases.load(name), workspace, spawn=True).play()


def test_every_remedy_belongs_to_a_case_that_shows_the_weakness() -> None:
    for name, number in [*deviations.REMEDIES, *deviations.INSTEAD]:
        case = cases.load(name)
        assert case.quirks, name
        assert number < len(case.steps), name


def test_every_row_of_what_is_not_yet_still_stands_for_something() -> None:
    known = [cases.load(name) for name in cases.names()]
    assert set(deviations.AREAS_NOT_YET) <= {case.area for case in known}
    assert set(deviations.CASES_NOT_YET) <= {case.name for case in known}
    assert set(deviations.COMMANDS_NOT_YET) <= {step.command for case in known for step in case.steps}
