"""The command lines, reconcile among them, with real sinks; and that no secret gets anywhere."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import pytest

from manager.core.alert_retries import MAX_TRIES
from spritemesh import jsontext
from spritemesh.files import locked_directory
from tests.harness import secrets
from tests.harness.agents import ROOT, environment
from tests.harness.loops import event
from tests.harness.manager import Ran, run
from tests.harness.receiver import Answer, Receiver
from tests.harness.waiting import wait_for
from tests.integration.alerts.conftest import Desk

KEY = secrets.PAGERDUTY_KEY
TOKEN = secrets.WEBHOOK_TOKEN


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


def test_pass_leaves_alerts_to_the_dispatcher_that_is_at_work(desk: Desk, reconcile: Any) -> None:
    hook = desk.sink("hook")
    with locked_directory(f"{desk.paths.ops}/telemetry", wait_seconds=0):
        began = time.monotonic()
        ran = reconcile()
        assert time.monotonic() - began < 3
    assert (ran.code, ran.err) == (0, "")
    assert (desk.rows, hook.requests) == ([], [])
    desk.dispatch()
    assert len(hook.requests) == 1


def start_pass(desk: Desk, stdout: int) -> "subprocess.Popen[bytes]":
    words = ["reconcile", "--repo", str(desk.root), "--loop", "alpha"]
    return subprocess.Popen(
        [sys.executable, "-m", "manager", *words, "--alert-config-file", str(desk.catalog)],
        cwd=ROOT,
        env=environment() | desk.environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_pass_that_is_ended_while_it_sends_has_printed_its_document(
    desk: Desk, reconcile: Any, ended_by: signal.Signals
) -> None:
    hook = desk.sink("hook", Answer(delay_seconds=30), timeoutSeconds=20)
    process = start_pass(desk, stdout=subprocess.PIPE)
    wait_for(lambda: hook.requests, what="the request")
    process.send_signal(ended_by)
    out, _ = process.communicate(timeout=10)
    assert json.loads(out)["schemaVersion"] == "v1"


def test_pass_whose_reader_has_left_tells_sinks_all_the_same(desk: Desk, reconcile: Any) -> None:
    hook = desk.sink("hook")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        process = start_pass(desk, stdout=writing)
    finally:
        os.close(writing)
    process.communicate(timeout=10)
    assert process.returncode != 0
    assert len(hook.requests) == 1


def test_telemetry_that_is_no_directory_shows_in_the_health_of_the_pass(desk: Desk, reconcile: Any) -> None:
    """There can be no row, standard error stays empty, and nothing is sent without a lock."""
    hook = desk.sink("hook")
    Path(desk.paths.ops, "telemetry").write_text("")
    ran = reconcile()
    assert (ran.code, ran.err) == (0, "")
    (document,) = ran.documents
    assert "telemetry_unwritable" in document["health"]["reasonCodes"]
    told = dispatch(desk)
    assert (told.code, "[state_unwritable]" in told.err) == (1, True)
    assert hook.requests == []
    Path(desk.paths.ops, "telemetry").unlink()
    assert dispatch(desk).code == 0
    assert len(hook.requests) == 1


def test_white_space_is_no_secret(desk: Desk) -> None:
    """To the resolver as to the sender."""
    hook = desk.sink("hook")
    desk.environment["HOOK_SECRET"] = " \n"
    words = ("--config-file", str(desk.catalog))
    refused = run("alert-sink-config", *words, **desk.environment)
    assert (refused.code, "[missing_secret]" in refused.err) == (1, True)
    (shown,) = run("alert-sink-config", *words, "--no-env-check", **desk.environment).documents
    assert shown["envStatus"] == {"HOOK_SECRET": {"present": False}}
    desk.escalate("one")
    desk.dispatch()
    assert desk.waiting == [{"hook": "missing_secret"}]
    assert hook.requests == []


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


# --- the runbook ------------------------------------------------------------------------------------


def commands_of_runbook(before: str) -> str:
    """The commands of the example that comes after a line which begins so."""
    lines = (ROOT / "docs" / "runbook.md").read_text().split(f"\n{before}", 1)[1].splitlines()
    indented = (line for line in dropwhile(lambda line: not line.startswith("    "), lines))
    return "\n".join(takewhile(lambda line: line.startswith("    "), indented))


def test_procedure_for_sending_an_alert_again_sends_that_one_each_time(desk: Desk) -> None:
    hook = desk.sink("hook", Answer(400))
    when = {"timestamp": "2024-03-11T10:00:00Z", "traceId": "trace-a"}
    rows = [{"category": "other"}, {"timestamp": "2024-03-11T10:00:01Z"}, {"traceId": "b"}, {}]
    lines = [jsontext.encode({**when, "category": "one", **row}) + b"\n" for row in rows]
    Path(desk.paths.escalations).write_bytes(b"".join(lines))
    desk.dispatch()
    for _ in range(MAX_TRIES):
        desk.later(3700)
    assert desk.rows[-1]["reasonCode"] == "alert_retries_exhausted"
    hook.take()
    hook.responses = [Answer(200)]

    script = commands_of_runbook("`alert_retries_exhausted` marks")
    for name, value in {
        "TRACE": "trace-a",
        "CATEGORY": "one",
        "TIME": when["timestamp"],
        " R/": f" {desk.root}/",
        "--repo R": f"--repo {desk.root}",
        "/L/": "/alpha/",
        "--loop L": "--loop alpha",
        "ops-manager alert-dispatch": f"{sys.executable} -m manager alert-dispatch",
    }.items():
        assert name in script
        script = script.replace(name, value)
    for number in (1, 2):
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=ROOT,
            env=environment()
            | desk.environment
            | {"OPS_MANAGER_ALERT_SINKS_FILE": str(desk.catalog), "TMPDIR": str(desk.root)},
            capture_output=True,
            text=True,
            check=True,
        )
        counted, state = done.stdout.splitlines()
        assert counted.startswith("1 ")
        assert json.loads(state)["dispatchedCount"] == 1
        assert len(hook.requests) == number
    assert {json.loads(told.body)["escalation"]["timestamp"] for told in hook.requests} == {when["timestamp"]}


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
