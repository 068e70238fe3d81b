"""When which loop is committed, and with what it is judged."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from manager.core.liveness import Record
from manager.core.registry import Entry
from manager.core.step import Step
from manager.fleet import schedule
from manager.fleet.schedule import Schedule
from manager.fleet.session import Plan, Session
from manager.fleet.tracedesk import TraceDesk
from manager.store import LoopStore, loop_files
from spritemesh.errors import OpsError
from tests.unit.core.test_observe import SETTINGS

_ROW = b'{"status":"failed","healthStatus":"critical","durationSeconds":0.5}\n'


class Host:
    """Who runs sessions, and has no interest in them."""

    def changed(self, session: Session) -> None:
        return


def owner(repo: Path, loop_id: str) -> Session:
    """A session that owns its loop, whose last 200 passes failed."""
    paths = loop_files(str(repo), loop_id)
    Path(paths.reconcile_telemetry).parent.mkdir(parents=True)
    Path(paths.reconcile_telemetry).write_bytes(_ROW * 200)
    settings = SETTINGS._replace(
        loop_id=loop_id, profile="balanced", profiles=frozenset({"balanced", "relaxed", "strict"})
    )
    host: Any = Host()
    plan = Plan(Entry(loop_id), None, settings)
    session = Session(plan, LoopStore(paths), host, asyncio.Semaphore(1), time.time, TraceDesk())
    session.is_owner = True
    return session


async def test_loop_that_fails_while_rows_of_others_are_read_is_judged_with_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, late = owner(tmp_path, "first"), owner(tmp_path, "late")
    first.loop._pass(Record("x", {}), time.time())
    late.loop.note(Record("y", {}), time.time())
    steps: list[tuple[str, Step]] = []
    made = Schedule(str(tmp_path), lambda session, step: steps.append((session.loop_id, step)), time.time)
    running = asyncio.get_running_loop()
    read = schedule._histories

    def meanwhile(sessions: list[Session]) -> Any:
        if late not in sessions:
            lost = OpsError("agent_unreachable", "gone")
            failing = asyncio.run_coroutine_threadsafe(_down(late, lost), running)
            failing.result(5)
        return read(sessions)

    monkeypatch.setattr(schedule, "_histories", meanwhile)
    await made._round([first, late])
    assert [loop_id for loop_id, _ in steps] == ["first"]
    await made._round([late])
    made.close()
    assert [step.outcome.drift.get("recommendedProfile") for _, step in steps if step.outcome.drift] == [
        "relaxed",
        "relaxed",
    ]


async def _down(session: Session, error: OpsError) -> None:
    now = time.time()
    session.loop.down(error, now + 1, now)
