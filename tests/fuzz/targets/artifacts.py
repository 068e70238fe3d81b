"""Every file that the agent reads beside the log: the runtime's JSON files, and those of its own directory.

An input holds some of them, each after its name. A snapshot is made, or refused with a reason of the table
and the name of the file at fault; heartbeats, which go on without what they cannot read, are made always.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

from manager.core.projection import project, seen_in_message
from sprite_agent.heartbeat import HeartbeatSource
from sprite_agent.http.replays import AnswerFiles, agrees, replay
from sprite_agent.identity import kept_sprite_id
from sprite_agent.lag import LagProbe
from sprite_agent.runtime.loop import LoopReader
from sprite_agent.runtime.ownheartbeat import is_own
from sprite_agent.runtime.repository import Repository
from sprite_agent.security import read_token
from spritemesh import jsontext
from spritemesh.bridge import snapshot_from_json, snapshot_to_json
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from tests.fuzz.checks import check_json, check_refusal
from tests.fuzz.driver import Run, Target
from tests.fuzz.sections import split
from tests.harness.loops import Repo

_LOOP = "alpha"
_KEY = "key-1"
# Name in an input -> place in the repository.
FILES = {
    "state.json": ".superloop/state.json",
    "active-run.json": ".superloop/active-run.json",
    "events.jsonl": ".superloop/loops/alpha/events.jsonl",
    "run-summary.json": ".superloop/loops/alpha/run-summary.json",
    "approval.json": ".superloop/loops/alpha/approval.json",
    "heartbeat.v1.json": ".superloop/loops/alpha/heartbeat.v1.json",
    "sprite-id": ".superloop/sprite-agent/sprite-id",
    "service-idempotency.json": ".superloop/ops-manager/alpha/service-idempotency.json",
    "token": "token",
}
_WORDS = (
    b'"active":', b'"current_loop_id":', b'"alpha"', b'"pid":', b'"loop_id":', b'"stage":', b'"entries":',
    b'"completion_ok":', b'"run_id":', b'"iteration":', b'"status":', b'"pending"', b'"gates":', b'"stuck":',
    b'"updated_at":', b'"ended_at":', b'"writer":"sprite-agent"', b'"timestamp":', b'"key-1":', b'"result":',
    *(b"\n--- " + name.encode() + b"\n" for name in FILES),
)  # fmt: skip


class _Sprite:
    def __init__(self, directory: Path) -> None:
        self._root = Repo(directory / "repo").root
        for place in FILES.values():
            (self._root / place).parent.mkdir(parents=True, exist_ok=True)
        self._written: set[str] = set()

    def run(self, data: bytes) -> Iterator[Hashable]:
        found = {name: content for name, content in split(data) if name in FILES}
        for name in self._written - found.keys():
            (self._root / FILES[name]).unlink(missing_ok=True)
        for name, content in found.items():
            (self._root / FILES[name]).write_bytes(content)
        self._written = set(FILES)
        yield from self._snapshot()
        yield from self._heartbeat()
        yield from self._own_files(found)

    def _snapshot(self) -> Iterator[Hashable]:
        reader = LoopReader(str(self._root), _LOOP)
        try:
            snapshot = reader.snapshot()
        except OpsError as error:
            yield f"snapshot {check_refusal(error, *FILES.values())}"
            return
        finally:
            reader.close()
        document = snapshot_to_json(snapshot)
        check_json(jsontext.encode_ascii(document))
        text = jsontext.encode(document)
        again = snapshot_from_json(jsontext.parse(text, max_depth=jsontext.MAX_DOCUMENT_DEPTH))
        assert jsontext.encode(snapshot_to_json(again)) == text, "there and back, the snapshot is another"
        state = project(
            seen_in_message(snapshot),
            None,
            None,
            now=0.0,
            repo_path="/repo",
            loop_id=_LOOP,
            snapshot_file="",
            events_file=None,
        )
        check_json(jsontext.encode(state))
        yield f"status {snapshot.run.status}"

    def _heartbeat(self) -> Iterator[Hashable]:
        repository = Repository(str(self._root))
        try:
            beat = HeartbeatSource(repository, LagProbe()).beat(1, "", 5.0, draining=False)
            assert len(beat.SerializeToString()) < 16 * 1024
            yield (
                beat.runtime.alive,
                bool(beat.runtime.loop_id),
                is_own(str(self._root / FILES["heartbeat.v1.json"])),
            )
        finally:
            repository.close()

    def _own_files(self, found: dict[str, bytes]) -> Iterator[Hashable]:
        sprite_id = kept_sprite_id(str(self._root))
        assert sprite_id.isprintable()
        request = ControlRequest(_LOOP, "cancel", _KEY, requested_by="test")
        answer = AnswerFiles(str(self._root)).find(_LOOP, _KEY)
        if answer is not None:
            yield "answer", agrees(answer, request)
            check_json(jsontext.encode_ascii(replay(answer, "trace")))
        if "token" in found:
            try:
                read_token(None, str(self._root / "token"), None)
                yield "token"
            except OpsError as error:
                yield f"token {check_refusal(error, '--token-file')}"
                secret = found["token"].strip().decode("utf-8", "replace")
                assert len(secret) < 4 or secret not in error.message, "the message tells the token"


@contextmanager
def _opened(directory: Path) -> Iterator[Run]:
    yield _Sprite(directory).run


TARGET = Target("artifacts", _opened, _WORDS)
