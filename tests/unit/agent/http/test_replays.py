"""service-idempotency.json: as v1 wrote it, within bounds."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from sprite_agent.http import replays
from sprite_agent.http.replays import AnswerFiles, agrees, replay
from spritemesh.control import ControlRequest
from tests.harness.loops import Repo

NOW = "2999-01-01T00:00:00Z"


def answer(number: int = 1, **result: Any) -> dict[str, Any]:
    return {
        "ok": True,
        "exitCode": 0,
        "result": {"timestamp": NOW, "number": number} | result,
        "replayed": False,
    }


@pytest.fixture
def path(repo: Repo) -> Path:
    return repo.root / ".superloop" / "ops-manager" / "alpha" / "service-idempotency.json"


@pytest.fixture
def kept(repo: Repo) -> AnswerFiles:
    return AnswerFiles(str(repo.root))


def test_the_file_is_compact_ascii_without_a_newline(kept: AnswerFiles, path: Path) -> None:
    kept.store("alpha", "k1", answer(note="é"))
    kept.store("alpha", "k2", answer(2))
    documents = {"k1": answer(note="é"), "k2": answer(2)}
    assert path.read_text() == json.dumps(documents, separators=(",", ":"))
    assert kept.find("alpha", "k1") == answer(note="é")
    assert kept.find("alpha", "k3") is None
    assert kept.find("beta", "k1") is None


def test_what_others_wrote_stays(kept: AnswerFiles, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text('{"old":{"ok":true,"result":{"timestamp":"odd"}},"odd":[1]}')
    kept.store("alpha", "new", answer())
    assert list(json.loads(path.read_text())) == ["old", "odd", "new"]
    assert kept.find("alpha", "odd") is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_an_unreadable_file_counts_as_empty(kept: AnswerFiles, path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert kept.find("alpha", "k") is None
    kept.store("alpha", "k", answer())
    assert json.loads(path.read_text()) == {"k": answer()}


def test_the_newest_answers_are_kept(kept: AnswerFiles, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "_MAX_ANSWERS", 3)
    for number in (1, 2, 3, 1, 4):
        kept.store("alpha", f"k{number}", answer(number))
    assert list(json.loads(path.read_text())) == ["k3", "k1", "k4"]
    monkeypatch.setattr(replays, "_MAX_BYTES", 250)
    kept.store("alpha", "k5", answer(5))
    assert list(json.loads(path.read_text())) == ["k4", "k5"]
    kept.store("alpha", "k6", answer(6, note="x" * 1000))
    assert list(json.loads(path.read_text())) == ["k6"]


def test_old_answers_are_dropped(kept: AnswerFiles, path: Path) -> None:
    kept.store("alpha", "old", answer(timestamp="2001-01-01T00:00:00Z"))
    assert kept.find("alpha", "old") is not None
    kept.store("alpha", "new", answer())
    assert list(json.loads(path.read_text())) == ["new"]


def test_several_writers_lose_nothing(repo: Repo, path: Path) -> None:
    def write(first: int) -> None:
        mine = AnswerFiles(str(repo.root))
        for number in range(first, first + 20):
            mine.store("alpha", f"k{number}", answer(number))

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(path.read_text())) == 60


def test_a_replay_differs_in_one_member() -> None:
    stored = {"ok": False, "replayed": False, "traceId": "t"}
    assert json.dumps(replay(stored, "other")) == '{"ok": false, "replayed": true, "traceId": "t"}'
    assert replay({"replayed": False}, "mine") == {"replayed": True, "traceId": "mine"}
    assert stored["replayed"] is False


def test_an_answer_agrees_with_its_own_request_only() -> None:
    stored = {"result": {"loopId": "alpha", "intent": "cancel", "requestedBy": "ana"}}
    request = ControlRequest("alpha", "cancel", "k", "ana")
    assert agrees(stored, request)
    others = (
        request._replace(loop_id="beta"),
        request._replace(intent="reject"),
        request._replace(requested_by="bob"),
        request._replace(note="n"),
    )
    assert not any(agrees(stored, other) for other in others)
    assert not agrees({}, request)
