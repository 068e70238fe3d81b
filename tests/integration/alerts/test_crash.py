"""A dispatch that ends in the middle: no alert is lost, and no sink is told twice that had taken it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from manager.core.alert_retries import Entry, document_of
from spritemesh.errors import OpsError
from tests.harness.agents import ROOT, environment
from tests.harness.disk import largest_file
from tests.harness.receiver import Answer
from tests.harness.waiting import wait_for
from tests.integration.alerts.conftest import Desk, categories


def start(desk: Desk) -> "subprocess.Popen[bytes]":
    words = ["alert-dispatch", "--repo", str(desk.root), "--loop", "alpha"]
    return subprocess.Popen(
        [sys.executable, "-m", "manager", *words, "--alert-config-file", str(desk.catalog)],
        cwd=ROOT,
        env=environment() | desk.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill(process: "subprocess.Popen[bytes]") -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_between_two_sinks_repeats_only_the_request_without_an_answer(desk: Desk) -> None:
    first = desk.sink("first", Answer(202, "taken"))
    second = desk.sink("second", Answer(delay_seconds=30), Answer(200))
    third = desk.sink("third")
    desk.escalate("one", "two")
    process = start(desk)
    wait_for(lambda: second.requests, what="the request to the second sink")
    kill(process)
    assert not Path(desk.paths.alert_state).exists()

    state = desk.dispatch()
    assert (state["dispatchedCount"], state["failedCount"]) == (2, 0)
    assert categories(first.requests) == ["one", "two"]
    assert categories(second.requests) == ["one", "one", "two"]
    assert categories(third.requests) == ["one", "two"]
    # The row tells of the sink that had taken it before, too.
    assert [sink["message"] for sink in desk.rows[0]["sinks"]] == ["taken", "ok", "ok"]
    assert not Path(desk.paths.alert_retries).exists()


def test_killed_within_a_retry_repeats_only_the_request_without_an_answer(desk: Desk) -> None:
    first = desk.sink("first", Answer(503), Answer(200))
    second = desk.sink("second", Answer(503), Answer(delay_seconds=30), Answer(200))
    desk.now -= 100_000  # long ago for the process that comes next
    desk.escalate("one")
    desk.dispatch()
    process = start(desk)
    wait_for(lambda: len(second.requests) == 2, what="the second request to the second sink")
    kill(process)
    assert desk.waiting == [{"second": "sink_failed"}]
    desk.later(60)
    assert (len(first.requests), len(second.requests)) == (2, 3)
    assert desk.waiting == []


def test_killed_within_the_first_try_after_a_broken_catalog_loses_nothing(desk: Desk) -> None:
    hook = desk.sink("hook", Answer(delay_seconds=30), Answer(200))
    desk.now -= 100_000
    desk.catalog.unlink()
    desk.escalate("one")
    desk.dispatch()
    desk.write_catalog()
    process = start(desk)
    wait_for(lambda: hook.requests, what="the request")
    kill(process)
    desk.later(60)
    assert categories(hook.requests) == ["one", "one"]
    assert desk.results[-1] == ("dispatched", None, 1)


@pytest.mark.parametrize("stage", ["telemetry", "state"])
def test_stopped_after_all_took_it_tells_nobody_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    hook, chat = desk.sink("hook"), desk.sink("chat", type_="slack")
    desk.escalate("one")
    seam = {
        "telemetry": "manager.alerts.work.LoopStore.append_telemetry",
        "state": "manager.alerts.progress.files.write_atomic",
    }[stage]
    real = Path(desk.paths.alert_state)
    with monkeypatch.context() as patch:
        patch.setattr(seam, _Stop(desk.paths.alert_retries if stage == "state" else ""))
        with pytest.raises(KeyboardInterrupt):
            desk.dispatch()
    assert not real.exists()
    assert desk.dispatch()["dispatchedCount"] == 1
    assert (len(hook.requests), len(chat.requests)) == (1, 1)
    assert not Path(desk.paths.alert_retries).exists()


def test_entry_of_a_passed_line_is_removed(desk: Desk) -> None:
    """The crash came between the state and the removal."""
    hook = desk.sink("hook")
    desk.escalate("one")
    desk.dispatch()
    entry = document_of([Entry(1, {}, routed=True)], now=desk.now, loop_id="alpha")
    Path(desk.paths.alert_retries).write_text(json.dumps(entry))
    desk.later(100_000)
    assert not Path(desk.paths.alert_retries).exists()
    assert len(hook.requests) == 1


def test_full_disk_sends_nothing(desk: Desk) -> None:
    """What took an alert could not be remembered."""
    hook = desk.sink("hook")
    desk.escalate("one")
    with largest_file(100), pytest.raises(OpsError) as caught:
        desk.dispatch()
    assert caught.value.reason == "state_unwritable"
    assert hook.requests == []
    desk.dispatch()
    assert len(hook.requests) == 1


def test_acknowledgement_that_cannot_be_recorded_ends_the_pass(desk: Desk) -> None:
    hook, other = desk.sink("hook", Answer(200, "x" * 300)), desk.sink("other")
    desk.escalate("one")
    # Enough for the entry, but not with the answer.
    with largest_file(450), pytest.raises(OpsError) as caught:
        desk.dispatch()
    assert caught.value.reason == "state_unwritable"
    assert (len(hook.requests), len(other.requests)) == (1, 0)


def test_telemetry_that_cannot_be_written_does_not_repeat_alerts(desk: Desk) -> None:
    hook = desk.sink("hook")
    desk.escalate("one")
    Path(desk.paths.alert_telemetry).mkdir(parents=True)
    assert desk.dispatch()["status"] == "success"
    assert desk.dispatch()["status"] == "no_new_escalations"
    assert len(hook.requests) == 1


class _Stop:
    """Stands in for a writing function: at any other file than `passed`, the process ends."""

    def __init__(self, passed: str) -> None:
        self._passed = passed

    def __call__(self, path: str, content: bytes) -> None:
        if path != self._passed:
            raise KeyboardInterrupt
        Path(path).write_bytes(content)
