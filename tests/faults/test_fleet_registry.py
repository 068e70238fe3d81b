"""A registry that changes while its fleet is read, and passes over loops that are watched."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.conftest import Way
from tests.harness.live_fleet import UP, Manager, entry, recent
from tests.harness.loops import Repo
from tests.harness.manager import Running
from tests.harness.waiting import wait_for

Reload = Callable[[Manager], None]


def by_signal(manager: Manager) -> None:
    manager.signal(signal.SIGHUP)


def by_itself(_: Manager) -> None:
    """The changed file is noticed."""


def stay_up(manager: Manager, loop_id: str, trace_id: str) -> None:
    """A session was left alone: one connection, still under its first trace id."""
    view = manager.view(loop_id)
    assert view.connection.state == UP
    assert view.counts.disconnects == 0
    assert view.last_trace_id == trace_id


@pytest.mark.parametrize("reload", [by_signal, by_itself])
def test_registry_changed_in_mid_replay_touches_only_what_it_changes(
    way: Way, repo: Repo, reload: Reload
) -> None:
    lines = 20_000
    data = recent(1, lines)
    way.loop.append(data)
    beta, gamma = repo.loop("beta", recent(1, 10)), repo.loop("gamma", recent(1, 20))
    urls = dict.fromkeys(("alpha", "beta", "gamma"), way.proxy.url)
    way.fleet.register(entry("alpha", urls["alpha"]), entry("beta", urls["beta"]))
    way.proxy.slow(len(data) / 4)
    manager = way.fleet.start()
    trace_id = manager.wait_for("alpha", lambda view: 0 < view.applied_line < lines).last_trace_id
    manager.wait_for("beta", lambda view: view.committed_line == 10, seconds=40)

    way.fleet.register(entry("alpha", urls["alpha"]), entry("gamma", urls["gamma"]))
    reload(manager)
    manager.wait_for("gamma", lambda view: view.committed_line == 20, seconds=40)
    assert sorted(manager.views()) == ["alpha", "gamma"]
    assert way.fleet.records("beta") == ["session_opened", "session_closed"]
    assert way.fleet.place("beta") == (10, 10)
    stay_up(manager, "alpha", trace_id)
    beta.append(recent(11, 12))
    gamma.append(recent(21, 22))

    way.proxy.slow(0)
    way.fleet.wait_until_read("alpha", lines)
    stay_up(manager, "alpha", trace_id)
    assert manager.view("alpha").counts.events == lines
    # Nobody reads what was taken out, until it comes back.
    assert way.fleet.place("beta") == (10, 10)
    way.fleet.register(*(entry(name, url) for name, url in urls.items()))
    reload(manager)
    back = manager.wait_for("beta", lambda view: view.committed_line == 12)
    assert (back.counts.events, back.counts.replayed) == (2, 0)
    manager.wait_for("gamma", lambda view: view.committed_line == 22)
    stay_up(manager, "alpha", trace_id)
    assert manager.stop() == 0
    for loop_id in urls:
        assert way.fleet.ordering_faults(loop_id) == []
    assert way.fleet.records("alpha") == ["session_opened", "session_closed"]


def test_entry_that_changes_gets_a_session_of_its_own_from_where_the_last_one_stood(way: Way) -> None:
    way.loop.append(recent(1, 40))
    manager = way.watch()
    way.fleet.register(entry("alpha", way.agent.url))
    manager.signal(signal.SIGHUP)
    target = way.agent.address
    after = manager.wait_for(
        "alpha", lambda view: view.connection.target == target and view.connection.state == UP
    )
    assert (after.applied_line, after.counts.events) == (40, 0)
    way.fleet.register(entry("alpha", way.agent.url, enabled=False))
    manager.signal(signal.SIGHUP)
    manager.wait_for("alpha", lambda view: view.connection.state == view.connection.STATE_DISABLED)
    assert manager.stop() == 0
    opened_and_closed = ["session_opened", "session_closed"]
    assert way.fleet.records("alpha") == opened_and_closed * 2
    assert way.fleet.place("alpha") == (40, 40)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "registry_invalid"),
        ('{"schemaVersion":"v1","loops":[{"loopId":"alpha","transport":"pigeon"}]}', "pigeon"),
        (None, "registry_missing"),
    ],
    ids=["torn", "unknown transport", "gone"],
)
def test_registry_that_cannot_be_used_changes_nothing_and_is_told(
    way: Way, text: str | None, said: str
) -> None:
    way.loop.append(recent(1, 40))
    manager = way.watch()
    trace_id = manager.view("alpha").last_trace_id
    if text is None:
        way.fleet.registry.unlink()
    else:
        way.fleet.registry.write_text(text)
    manager.signal(signal.SIGHUP)
    wait_for(lambda: said in manager.said(), what=f"a word of it; it said {manager.said()}")
    assert "the registry before stays in force" in manager.said()
    way.loop.append(recent(41, 50))
    manager.wait_for("alpha", lambda view: view.committed_line == 50)
    stay_up(manager, "alpha", trace_id)
    assert manager.stop() == 0
    assert "Traceback" not in manager.said()


def test_pass_over_a_loop_that_is_watched_waits_and_is_refused_until_the_manager_ends(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    way.loop.append(recent(1, 40))
    manager = way.watch()
    monkeypatch.setattr("manager.store.loop.LOCK_WAIT_SECONDS", 1.0)  # ten otherwise
    since = time.monotonic()
    refused = way.fleet.reconcile("alpha", way.agent.url)
    assert time.monotonic() - since > 1.0
    assert (refused.code, refused.out) == (1, "")
    assert "[state_locked]" in refused.err
    way.loop.append(recent(41, 50))
    manager.wait_for("alpha", lambda view: view.committed_line == 50)
    assert manager.stop() == 0
    way.loop.append(recent(51, 55))
    done = way.fleet.reconcile("alpha", way.agent.url)
    assert (done.code, done.err) == (0, "")
    assert way.fleet.place("alpha") == (55, 55)
    assert way.fleet.rows("alpha", "reconcile_telemetry")[-1]["eventsIngested"] == 5
    assert way.fleet.ordering_faults("alpha") == []


def opens(process: int, directory: Path) -> bool:
    """Whether a process has a directory open, as it must to lock it."""
    with suppress(FileNotFoundError):  # of one that it closes meanwhile
        return any(link.readlink() == directory for link in Path(f"/proc/{process}/fd").iterdir())
    return False


def test_pass_that_waits_for_a_watched_loop_goes_on_when_its_manager_ends(way: Way) -> None:
    way.loop.append(recent(1, 40))
    manager = way.watch()
    waiting = Running(*way.fleet.pass_words("alpha", way.agent.url))
    try:
        directory = way.fleet.path("alpha", "ops")
        wait_for(lambda: opens(waiting.process.pid, directory), what="a pass that waits for the lock")
        assert manager.stop() == 0
        done = waiting.end()
    finally:
        waiting.close()
    assert (done.code, done.err) == (0, "")
    row = way.fleet.rows("alpha", "reconcile_telemetry")[-1]
    assert (row["status"], row["cursorOffsetBefore"], row["eventsIngested"]) == ("success", 40, 0)


def test_second_manager_of_a_fleet_is_refused(way: Way) -> None:
    manager = way.watch()
    second = way.fleet.start()
    assert second.wait() == 1
    assert "[fleet_running]" in second.said()
    assert manager.view("alpha").connection.state == UP


def test_loop_that_leaves_the_registry_takes_its_connection_along(way: Way) -> None:
    """At once, and not when the collector comes by: errors know the frames that they passed, and those the
    connection."""
    manager = way.watch()
    assert way.proxy.open == 1
    way.fleet.register(entry("other", enabled=False))
    manager.signal(signal.SIGHUP)
    wait_for(lambda: not way.proxy.open, what="the connection to end")
