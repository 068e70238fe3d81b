"""Notices of changed files, and the streams that they wake."""

import asyncio
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sprite_agent import changes as changes_module
from sprite_agent.changes import ChangeHub, Subscription
from sprite_agent.drain import Drain
from sprite_agent.runtime import watch as watch_module
from sprite_agent.runtime.watch import DirectoryWatch

pytestmark = pytest.mark.skipif(watch_module.inotify is None, reason="needs inotify")
# Far more than a wake-up takes, far less than the safety poll of one second.
SOON = 0.5


@pytest.fixture
def watch() -> Iterator[DirectoryWatch]:
    found = DirectoryWatch()
    yield found
    found.close()


def noticed(watch: DirectoryWatch) -> set[str]:
    select.select([watch.fileno()], [], [], SOON)
    return watch.changed()


def test_changes_of_files_are_noticed_by_directory(tmp_path: Path, watch: DirectoryWatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert watch.add(str(tmp_path / name))
    assert watch.changed() == set()
    (tmp_path / "a" / "new").write_text("")
    assert noticed(watch) == {str(tmp_path / "a")}
    with (tmp_path / "a" / "new").open("a") as file:
        file.write("x")
    assert noticed(watch) == {str(tmp_path / "a")}
    os.replace(tmp_path / "a" / "new", tmp_path / "b" / "new")
    assert noticed(watch) == {str(tmp_path / "a"), str(tmp_path / "b")}


def test_temporary_file_is_no_change_and_its_renaming_is(tmp_path: Path, watch: DirectoryWatch) -> None:
    watch.add(str(tmp_path))
    temporary = tmp_path / "state.json.123.tmp"
    temporary.write_text("{}")
    assert noticed(watch) == set()
    temporary.replace(tmp_path / "state.json")
    assert noticed(watch) == {str(tmp_path)}


def test_missing_directory_is_not_watched(tmp_path: Path, watch: DirectoryWatch) -> None:
    assert not watch.add(str(tmp_path / "missing"))
    assert not watch.watches(str(tmp_path / "missing"))


def test_directory_that_is_removed_is_no_longer_watched(tmp_path: Path, watch: DirectoryWatch) -> None:
    directory = tmp_path / "a"
    directory.mkdir()
    watch.add(str(directory))
    directory.rmdir()
    noticed(watch)
    assert not watch.watches(str(directory))
    directory.mkdir()
    assert watch.add(str(directory))
    (directory / "new").write_text("")
    assert str(directory) in noticed(watch)


def test_watch_does_without_inotify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "inotify", None)
    watch = DirectoryWatch()
    assert (watch.fileno(), watch.add(str(tmp_path)), watch.changed()) == (-1, False, set())
    watch.close()


async def test_subscribers_of_a_directory_are_woken_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    hub = ChangeHub()
    with hub.subscribe((str(tmp_path / "a"),)) as mine, hub.subscribe((str(tmp_path / "b"),)) as other:
        started = time.monotonic()
        waiting = asyncio.ensure_future(mine.wait(10))
        (tmp_path / "a" / "new").write_text("")
        assert await waiting
        assert time.monotonic() - started < SOON
        assert not await other.wait(0.01)
    hub.close()


async def test_change_that_comes_while_nobody_waits_is_remembered_once() -> None:
    subscription = Subscription()
    subscription.wake()
    subscription.wake()
    assert await subscription.wait(10)
    assert not await subscription.wait(0.01)


async def test_wait_can_be_cancelled_and_taken_up_again() -> None:
    subscription = Subscription()
    waiting = asyncio.ensure_future(subscription.wait(10))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    subscription.wake()
    assert await subscription.wait(10)


async def test_directory_made_later_is_watched_after_ensure(tmp_path: Path) -> None:
    hub = ChangeHub()
    late = tmp_path / "late"
    with hub.subscribe((str(late),)) as subscription:
        late.mkdir()
        hub.ensure((str(late),))
        (late / "new").write_text("")
        assert await subscription.wait(10)
    hub.close()


async def test_change_without_a_notice_is_found_by_the_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "SAFETY_POLL_SECONDS", 0.05)
    log, other = tmp_path / "log", tmp_path / "other"
    other.write_text("")
    hub = ChangeHub()
    with (
        hub.subscribe((), str(log)) as mine,
        hub.subscribe((), str(log)) as yours,
        hub.subscribe((), str(other)) as his,
    ):
        for change in (lambda: log.write_text("1"), lambda: log.write_text("12"), log.unlink):
            assert not await mine.wait(0.12)
            change()
            assert await mine.wait(10)
            assert await yours.wait(10)
        assert not await his.wait(0.01)
    hub.close()


async def test_directory_made_anew_is_watched_after_a_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "SAFETY_POLL_SECONDS", 0.05)
    late = tmp_path / "late"
    hub = ChangeHub()
    with hub.subscribe((str(late),), str(late / "log")) as subscription:
        late.mkdir()
        await asyncio.sleep(0.15)
        (late / "new").write_text("")
        started = time.monotonic()
        assert await subscription.wait(10)
        assert time.monotonic() - started < SOON
    hub.close()


async def test_drain_wakes_everybody_and_waits_for_the_last_stream(tmp_path: Path) -> None:
    hub = ChangeHub()
    drain = Drain(hub.wake_all)
    assert await drain.wait_for_streams(0.01)
    with hub.subscribe((str(tmp_path),)) as subscription, hub.subscribe(()) as bare:
        with drain.stream():
            assert not await drain.wait(0.01)
            drain.start()
            drain.start()
            assert drain.started
            assert await subscription.wait(10)
            assert await bare.wait(10)
            assert not await drain.wait_for_streams(0.01)
        assert await drain.wait_for_streams(10)
    hub.close()
