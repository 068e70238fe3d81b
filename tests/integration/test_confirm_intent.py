"""`confirm-intent`: the same answer from the repository and through an agent (contract E.3)."""

import socket
import threading
import time

import pytest

from tests.harness.agents import StartAgent
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.manager import Ran, run

WAYS = pytest.mark.parametrize("through_agent", [False, True], ids=["local", "agent"])


@pytest.fixture
def loop(repo: Repo) -> LoopFiles:
    """A loop that runs."""
    running(repo)
    return repo.loop(data=event(1, "iteration_start"))


def running(repo: Repo, *, active: bool = True) -> None:
    repo.put("state.json", {"active": active, "current_loop_id": "alpha"})


def confirm(repo: Repo, *words: str, loop_id: str = "alpha") -> Ran:
    return run("confirm-intent", "--repo", str(repo.root), "--loop", loop_id, *words)


def service_flags(start: StartAgent, *, through_agent: bool) -> tuple[str, ...]:
    if not through_agent:
        return ()
    agent = start()
    return ("--service-base-url", agent.url, "--service-token", agent.token)


@WAYS
def test_predicates_are_told_by_their_names(
    repo: Repo, loop: LoopFiles, start: StartAgent, through_agent: bool
) -> None:
    flags = (*service_flags(start, through_agent=through_agent), "--timeout-seconds", "0")
    for intent in ("cancel", "approve", "reject"):
        ran = confirm(repo, "--intent", intent, *flags)
        [told] = ran.documents
        assert (ran.code, told["confirmed"], told["reason"], told["attempts"]) == (1, False, "timeout", 1)
        assert (told["observedStatus"], told["observedActive"]) == ("running", True)
    running(repo, active=False)
    loop.put("approval.json", {"status": "rejected"})
    loop.append(event(2, "loop_complete"))
    for intent, reason in (
        ("cancel", "inactive_not_running"),
        ("approve", "completion_observed"),
        ("reject", "rejection_observed"),
    ):
        ran = confirm(repo, "--intent", intent, *flags)
        [told] = ran.documents
        assert (ran.code, ran.err, told["confirmed"], told["reason"]) == (0, "", True, reason)


@WAYS
def test_effect_that_comes_later_is_waited_for(
    repo: Repo, loop: LoopFiles, start: StartAgent, through_agent: bool
) -> None:
    flags = service_flags(start, through_agent=through_agent)
    # Files are watched; through a service only the interval looks again.
    interval = "1" if through_agent else "30"
    threading.Timer(0.2, lambda: running(repo, active=False)).start()
    started = time.monotonic()
    ran = confirm(repo, "--intent", "cancel", "--interval-seconds", interval, *flags)
    [told] = ran.documents
    assert (ran.code, told["reason"]) == (0, "inactive_not_running")
    assert told["attempts"] >= 2
    assert time.monotonic() - started < 5


def test_decision_that_approves_is_no_rejection(repo: Repo, loop: LoopFiles) -> None:
    loop.append(event(2, "approval_decision", status="approved"))
    flags = ("--intent", "reject", "--timeout-seconds", "0")
    assert confirm(repo, *flags).code == 1
    loop.append(event(3, "approval_decision", status="rejected"))
    assert confirm(repo, *flags).code == 0


def test_loop_that_cannot_be_read_is_unknown(repo: Repo) -> None:
    ran = confirm(repo, "--intent", "cancel", "--timeout-seconds", "0", loop_id="ghost")
    [told] = ran.documents
    assert (ran.code, ran.err, told["observedStatus"], told["observedLastEvent"]) == (1, "", "unknown", None)


def test_service_that_is_not_there_is_unknown_and_says_why(repo: Repo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"grpc://127.0.0.1:{server.getsockname()[1]}"
    ran = confirm(repo, "--intent", "cancel", "--timeout-seconds", "0", "--service-base-url", url)
    assert (ran.code, ran.documents[0]["observedStatus"]) == (1, "unknown")
    assert ran.err.startswith("note: the last look failed: ")
    assert ran.err.endswith("[agent_unreachable]\n")


@pytest.mark.parametrize(
    ("words", "mentions"),
    [
        ((), "--intent"),
        (("--intent", "pause"), "cancel, approve, reject"),
        (("--intent", "cancel", "--timeout-seconds", "x"), "--timeout-seconds"),
        (("--intent", "cancel", "--timeout-seconds", "86401"), "--timeout-seconds"),
        (("--intent", "cancel", "--interval-seconds", "86401"), "--interval-seconds"),
        (("--intent", "cancel", "--loop", "../x"), "--loop"),
    ],
)
def test_refused_arguments_name_their_flag(repo: Repo, words: tuple[str, ...], mentions: str) -> None:
    ran = confirm(repo, *words)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
    assert mentions in ran.err
