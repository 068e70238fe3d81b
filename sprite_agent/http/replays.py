"""service-idempotency.json: the answers of keyed control requests, as v1's service keeps them (contract D.4).

The ledger decides what was executed. This file is for v1 tools that read it, for the very bodies that were
sent, and for keys that a v1 service recorded before an agent took its place.
"""

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sprite_agent.runtime.layout import agent_directory, ops_directory
from spritemesh import files, jsontext, modes
from spritemesh.control import ControlRequest
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.times import parse_rfc3339
from spritemesh.values import get

# Each keyed request writes all of it anew.
_MAX_ANSWERS = 200
_MAX_BYTES = 512 * 1024
# As long as the ledger keeps a key.
_MAX_AGE_SECONDS = 7 * 86_400

Answer = dict[str, JSON]


class AnswerFiles:
    """The files of all loops of a repository. Blocking; for several threads and processes."""

    def __init__(self, repo: str) -> None:
        self._repo = repo
        self._lock = threading.Lock()

    def find(self, loop_id: str, key: str) -> Answer | None:
        """The answer that was stored for a key; None without one."""
        answer = self._read(self._path(loop_id)).get(key)
        return answer if isinstance(answer, dict) else None

    def store(self, loop_id: str, key: str, answer: Answer) -> None:
        """Add an answer, and drop those that are old or too many.

        Raises OpsError `state_unwritable`, or OSError for the lock.
        """
        path = self._path(loop_id)
        with self._locked():
            answers = self._read(path)
            answers.pop(key, None)
            answers[key] = answer
            files.write_atomic(path, _encode(answers, time.time()))

    def _path(self, loop_id: str) -> str:
        return os.path.join(ops_directory(self._repo, loop_id), "service-idempotency.json")

    @staticmethod
    def _read(path: str) -> Answer:
        """The members of a file; none when there is no file or it cannot be read (contract D.4)."""
        try:
            return files.read_object(path) or {}
        except OpsError:
            return {}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time. The manager directory's own lock is left to those who reconcile."""
        directory = agent_directory(self._repo)
        modes.make_directory(directory)
        path = os.path.join(directory, "service-idempotency.lock")
        with self._lock:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, modes.FILE)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield
            finally:
                os.close(handle)


def replay(answer: Answer, trace_id: str) -> Answer:
    """A stored answer as it is given again: `replayed` in its place, `traceId` only if it had none."""
    again = answer | {"replayed": True}
    if not again.get("traceId"):
        again["traceId"] = trace_id
    return again


def agrees(answer: Answer, request: ControlRequest) -> bool:
    """Whether a stored answer can be that of `request`, as far as it tells (contract L15)."""
    result = answer.get("result")
    told = [get(result, name) or "" for name in ("loopId", "intent", "requestedBy", "note")]
    return told == [request.loop_id, request.intent, request.requested_by, request.note]


def _encode(answers: Answer, now: float) -> bytes:
    """The file with the newest answers, those last in it, within its bounds; the last one in any case."""
    members: list[bytes] = []
    size = 2
    for key, answer in reversed(answers.items()):
        member = jsontext.encode_ascii(key) + b":" + jsontext.encode_ascii(answer)
        size += len(member) + 1
        if members and (len(members) >= _MAX_ANSWERS or size > _MAX_BYTES):
            break
        told_at = parse_rfc3339(get(answer, "result", "timestamp"))
        if not members or told_at is None or now - told_at <= _MAX_AGE_SECONDS:
            members.append(member)
    return b"{" + b",".join(reversed(members)) + b"}"
