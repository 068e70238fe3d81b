"""Steps of a check: their order, their time, and what may stand in a report."""

import threading
import time
from collections.abc import Iterator

import pytest

from sprite_agent.probe.report import document_of, failure_of, lines_of
from sprite_agent.probe.steps import Found, Result, Steps, lost, skip, warn, well, within
from spritemesh.errors import OpsError


@pytest.fixture
def forever() -> Iterator[threading.Event]:
    """What a hanging step waits for: the end of the test."""
    event = threading.Event()
    yield event
    event.set()


def failing(reason: str, message: str) -> Found:
    raise OpsError(reason, message)


def broken() -> Found:
    raise RuntimeError("a defect")


def results(steps: Steps) -> list[tuple[str, str]]:
    return [(step.name, str(step.result)) for step in steps.found]


def test_step_is_skipped_when_one_that_it_needs_was_lost() -> None:
    steps = Steps("s", seconds=5, whole=5)
    steps.take("first", lambda: failing("token_wrong", "no"))
    steps.take("second", lambda: well("never"), needs=("first",))
    steps.take("third", lambda: well("never"), needs=("second",))
    steps.take("absent", lambda: skip("nothing there"))
    steps.take("warned", lambda: warn("disk_low", "little"), needs=("absent",))
    steps.take("fourth", lambda: well("fine"), needs=("warned",))
    assert results(steps) == [
        ("first", "failed"),
        ("second", "skipped"),
        ("third", "skipped"),
        ("absent", "skipped"),
        ("warned", "warning"),
        ("fourth", "ok"),
    ]
    assert steps.found[0].next == "Compare the token with the agent's."
    assert steps.found[2].detail == "needs second"


def test_step_that_hangs_costs_its_time_and_no_more(forever: threading.Event) -> None:
    begun = time.monotonic()
    steps = Steps("s", seconds=0.05, whole=0.1)
    for name in ("one", "two", "three"):
        steps.take(name, lambda: well(str(forever.wait())))
    assert time.monotonic() - begun < 2
    assert [step.reason for step in steps.found[:2]] == ["deadline_exceeded"] * 2
    assert steps.found[2].detail == "no time was left for it"
    # Whoever has no time left is no failure of its own.
    assert steps.found[2].result is Result.SKIPPED


def test_defect_of_a_step_is_told_and_hides_no_other() -> None:
    steps = Steps("s", seconds=5, whole=5)
    steps.take("broken", broken)
    steps.take("next", lambda: well("fine"))
    assert results(steps) == [("broken", "failed"), ("next", "ok")]
    assert steps.found[0].reason == "internal_error"
    with pytest.raises(KeyboardInterrupt):
        within(5, lambda: (_ for _ in ()).throw(KeyboardInterrupt))


def test_detail_is_one_harmless_line_without_secrets() -> None:
    steps = Steps("s", seconds=5, whole=5, secrets=("the-token-itself",))
    steps.take("said", lambda: well("a\x1b[31m\nthe-token-itself"))
    steps.take("long", lambda: failing("token_wrong", "x" * 10_000))
    assert steps.found[0].detail == "a\\x1b[31m ***"
    assert len(steps.found[1].detail) == 500


def test_report_counts_and_tells_what_to_do() -> None:
    steps = Steps("subject", seconds=5, whole=5)
    assert failure_of(steps.found) is None
    steps.take("good", lambda: well("fine"))
    steps.take("bad", lambda: lost("token_wrong", "no", "Do this."))
    steps.take("worse", lambda: failing("disk_low", "none"))
    document = document_of(steps.found)
    assert document["ok"] is False
    assert document["counts"] == {"ok": 1, "warning": 0, "failed": 2, "skipped": 0}
    assert failure_of(steps.found) == ("subject: bad: no (and 1 more)", "token_wrong")
    assert list(lines_of(steps.found))[:4] == [
        "subject",
        "  ok       good   fine",
        "  failed   bad    no [token_wrong]",
        "                  -> Do this.",
    ]
