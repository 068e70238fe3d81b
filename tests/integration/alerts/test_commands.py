"""The command lines, reconcile among them, with real sinks; and that no secret gets anywhere."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from spritemesh.files import locked_directory
from tests.harness.agents import ROOT, environment
from tests.harness.loops import event
from tests.harness.manager import Ran, run
from tests.harness.receiver import Answer, Receiver
from tests.integration.alerts.conftest import Desk

KEY = "R0UTINGK3Y-4711"
TOKEN = "t0ken-that-nobody-may-see"


@pytest.fixture
def reconcile(desk: Desk) -> Any:
    """Runs passes over a loop whose old events make it critical."""
    loop = desk.root / ".superloop" / "loops" / "alpha"
    loop.mkdir(parents=True)
    (loop / "events.jsonl").write_bytes(event(1, "loop_start"))

    def call(*flags: str, **variables: str) -> Ran:
        words = ("--repo", str(desk.root), "--loop", "alpha", "--alert-config-file", str(desk.catalog))
        return run("reconcile", *words, *flags, **desk.environment, **variables)

    return call


def test_pass_tells_its_escalations_at_once(desk: Desk, reconcile: Any) -> None:
    hook = desk.sink("hook")
    ran = reconcile("--trace-id", "trace-r")
    assert (ran.code, ran.err) == (0, "")
    (told,) = hook.requests
    assert json.loads(told.body)["event"]["category"] == "health_critical"
    assert told.header("x-trace-id") == "trace-r"
    assert desk.state["status"] == "success"


def test_alert_hangs_from_its_escalation_in_the_tree_of_the_trace(desk: Desk, reconcile: Any) -> None:
    desk.sink("hook")
    reconcile("--trace-id", "trace-r")
    (document,) = run("trace", "trace-r", "--repo", str(desk.root)).documents
    (step,) = document["steps"]
    (escalation,) = step["steps"]
    (alert,) = escalation["steps"]
    assert [found["kind"] for found in (step, escalation, alert)] == ["reconcile", "escalation", "alert"]
    assert (alert["status"], alert["detail"]["sinks"]) == ("dispatched", {"hook": 200})


def test_pass_that_sends_nothing_loads_no_http(desk: Desk, reconcile: Any) -> None:
    words = ["reconcile", "--repo", str(desk.root), "--loop", "alpha"]
    script = (
        f"import sys; from manager.cli import main; main({words!r});"
        "print([name for name in ('httpx', 'ssl', 'asyncio') if name in sys.modules])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    # The escalation was routed, to a sink that is switched off.
    assert desk.results == [("skipped", "no_dispatchable_sinks", None)]
    assert told.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("flags", "variable", "told"),
    [
        ((), "", True),
        ((), "true", True),
        ((), "yes", False),
        ((), "false", False),
        (("--alerts-enabled", "true"), "no", True),
        (("--alerts-enabled", "false"), "true", False),
    ],
)
def test_alerts_are_sent_unless_switched_off(
    desk: Desk, reconcile: Any, flags: tuple[str, ...], variable: str, told: bool
) -> None:
    hook = desk.sink("hook")
    assert reconcile(*flags, OPS_MANAGER_ALERTS_ENABLED=variable).code == 0
    assert bool(hook.requests) is told
    assert Path(desk.paths.alert_state).exists() is told


def test_dispatch_that_fails_is_a_row_and_no_failure(desk: Desk, reconcile: Any) -> None:
    Path(desk.paths.alert_state).write_text("{")
    ran = reconcile("--trace-id", "trace-r")
    assert (ran.code, ran.err) == (0, "")
    (row,) = desk.rows
    assert list(row) == ["timestamp", "loopId", "traceId", "category", "status", "reasonCode", "message"]
    assert (row["traceId"], row["status"], row["reasonCode"]) == (
        "trace-r",
        "failed_command",
        "alert_dispatch_failed",
    )
    assert desk.paths.alert_state in row["message"]


def test_pass_does_not_wait_for_ever_for_another_dispatcher(
    desk: Desk, reconcile: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = desk.sink("hook")
    monkeypatch.setattr("manager.alerts.dispatch.LOCK_WAIT_SECONDS", 0.05)
    with locked_directory(f"{desk.paths.ops}/telemetry", wait_seconds=0):
        assert reconcile().code == 0
    assert desk.rows[0]["message"].startswith("state_locked: ")
    assert hook.requests == []
    desk.dispatch()
    assert len(hook.requests) == 1


def test_files_of_dispatch_can_be_moved(desk: Desk, reconcile: Any, tmp_path: Path) -> None:
    desk.sink("hook", Answer(503))
    state, telemetry = tmp_path / "state.json", tmp_path / "alerts.jsonl"
    flags = ("--alert-dispatch-state-file", str(state), "--alert-dispatch-telemetry-file", str(telemetry))
    assert reconcile(*flags).code == 0
    assert json.loads(state.read_text())["dispatchTelemetryFile"] == str(telemetry)
    assert json.loads(telemetry.read_text())["status"] == "failed"
    assert Path(f"{state}.retries.json").exists()


def test_sinks_that_hang_bound_a_pass_by_their_limits(desk: Desk, reconcile: Any) -> None:
    desk.sink("hook", Answer(delay_seconds=30), timeoutSeconds=1)
    began = time.monotonic()
    ran = reconcile()
    assert time.monotonic() - began < 3
    assert (ran.code, ran.err) == (0, "")
    assert desk.waiting == [{"hook": "sink_timeout"}]


def test_status_tells_of_the_last_delivery(desk: Desk, reconcile: Any) -> None:
    desk.sink("hook", Answer(503))
    reconcile()
    (document,) = run("status", "--repo", str(desk.root), "--loop", "alpha").documents
    assert document["alerts"]["dispatch"]["failureReasonCodes"] == ["http_error"]
    assert document["alerts"]["lastDelivery"]["reasonCode"] == "dispatch_failed"


def dispatch(desk: Desk, *flags: str) -> Ran:
    words = ("--repo", str(desk.root), "--loop", "alpha", "--alert-config-file", str(desk.catalog))
    return run("alert-dispatch", *words, *flags, **desk.environment)


def test_people_see_that_alerts_wait(desk: Desk) -> None:
    desk.sink("hook", Answer(503))
    desk.escalate("one")
    ran = dispatch(desk, "--output", "table")
    assert ran.code == 0
    assert "failed 1" in " ".join(ran.out.split())
    assert "some alerts wait for another try" in ran.out


def test_state_and_file_that_do_not_fit_are_an_error(desk: Desk) -> None:
    desk.escalate("one")
    Path(desk.paths.alert_state).write_text('{"escalationsLineOffset":3}')
    ran = dispatch(desk)
    assert (ran.code, ran.out) == (1, "")
    assert "is 3" in ran.err
    assert "has 1 lines" in ran.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--config-file", "/nowhere.json"), "/nowhere.json"),
        (("--severity", "info"), "--severity"),
        (("--category", "x", "--severity", "loud"), "--severity"),
        (("--list-sinks", "--category", "x"), "--list-sinks"),
    ],
)
def test_resolver_names_what_it_refuses(words: tuple[str, ...], named: str) -> None:
    ran = run("alert-sink-config", *words)
    assert (ran.code, ran.out) == (1, "")
    assert named in ran.err


def test_resolver_names_file_and_member(desk: Desk) -> None:
    desk.put_sink("odd", {"enabled": True, "type": "pigeon"})
    ran = run("alert-sink-config", "--config-file", str(desk.catalog))
    assert ran.code == 1
    assert f"{desk.catalog}: sinks.odd.type" in ran.err
    assert "[alert_catalog_invalid]" in ran.err


@pytest.mark.parametrize("words", [(), ("--category", "health_critical")])
def test_people_see_the_sinks(words: tuple[str, ...]) -> None:
    ran = run("alert-sink-config", *words, "--output", "table")
    assert ran.code == 0
    assert "slack-default" in ran.out
    assert "(not" in ran.out


def test_catalog_of_the_environment_is_used(desk: Desk) -> None:
    desk.put_sink("mine", {"enabled": False, "type": "webhook", "urlEnv": "MINE"})
    ran = run("alert-sink-config", "--list-sinks", OPS_MANAGER_ALERT_SINKS_FILE=str(desk.catalog))
    assert ran.out == "mine\twebhook\tfalse\n"


# --- secrets ----------------------------------------------------------------------------------------


def repeats(secrets: list[str]) -> str:
    """What a sink answers that repeats what it was sent."""
    return json.dumps({"you said": secrets, "again": " ".join(secrets)})


def test_no_secret_is_left_anywhere(desk: Desk, tmp_path: Path) -> None:
    hook = desk.sink("hook", authTokenEnv="HOOK_TOKEN")
    chat = desk.sink("chat", type_="slack")
    pager = desk.sink("pager", type_="pagerduty_events")
    gone = desk.sink("gone")
    broken = desk.sink("broken", authTokenEnv="BROKEN_TOKEN")
    secrets = {
        "HOOK_SECRET": f"{hook.url}/services/T024BE7LD/hookpathsecret?sig=querysecret1",
        "HOOK_TOKEN": TOKEN,
        "CHAT_SECRET": f"http://user:passw0rd9@{chat.url.removeprefix('http://')}/services/chatpathsecret",
        "PAGER_SECRET": KEY,
        "GONE_SECRET": "http://127.0.0.1:9/services/gonepathsecret",
        "BROKEN_TOKEN": "brokentokensecret\nx",
    }
    desk.environment |= secrets
    words = [*secrets.values(), "hookpathsecret", "querysecret1", "chatpathsecret", "passw0rd9"]
    words += ["gonepathsecret", "brokentokensecret", "dXNlcjpwYXNzdzByZDk="]
    for receiver, status in ((hook, 400), (chat, 302), (pager, 500)):
        receiver.responses = [Answer(status, repeats(words), {"Location": secrets["CHAT_SECRET"]})]
    desk.escalate("one", "two")

    said = []
    for flags in ((), ("--output", "table")):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "manager", "alert-dispatch", "--repo", str(desk.root)),
                *("--loop", "alpha", "--alert-config-file", str(desk.catalog), *flags),
            ],
            cwd=ROOT,
            env=environment() | desk.environment | {"SPRITEMESH_DEBUG": "1", "TMPDIR": str(tmp_path)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0
        said += [done.stdout, done.stderr]

    assert [len(receiver.requests) for receiver in (hook, chat, pager, gone, broken)] == [2, 2, 2, 0, 0]
    assert desk.rows[0]["failedSinkCount"] == 5
    assert "***" in desk.rows[0]["sinks"][0]["message"]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 5
    for word in words:
        for where, content in [*((str(path), path.read_bytes()) for path in files), *enumerate(said)]:
            assert word.encode() not in content, f"{word} in {where}"


def test_receivers_are_what_secrets_are_sent_to(desk: Desk) -> None:
    """The other half of the test above: secrets do arrive where they belong."""
    hook: Receiver = desk.sink("hook", authTokenEnv="HOOK_TOKEN")
    desk.environment["HOOK_TOKEN"] = f" {TOKEN}\n"
    desk.escalate("one")
    assert dispatch(desk).code == 0
    assert hook.requests[0].header("authorization") == f"Bearer {TOKEN}"
