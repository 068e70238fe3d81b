"""What was asked under which key, and what became of it: durable before anything runs.

One SQLite file a repository, in WAL mode with every commit synced; several processes may use it. A row
is written before the command starts, so that whoever finds it unfinished knows that the command may have
run, and never runs it again.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from sprite_agent.control.mark import is_alive
from sprite_agent.control.observation import Observation
from spritemesh import jsontext, modes
from spritemesh.control import Confirmation, ControlRequest
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from superloop.ops.v1 import control_pb2 as pb

STARTED = 1
CONFIRMING = 2
FINISHED = 3

RETENTION_SECONDS = 7 * 86400.0
RETENTION_ROWS = 10_000
# Old rows are looked for at every so many insertions.
_PRUNE_EVERY = 64
_BUSY_SECONDS = 5.0
_POLL_SECONDS = 0.01
_SCHEMA = 1
# To close a file that another connection of this process has open would end SQLite's locks on it.
_opening = threading.Lock()
# Columns in the order of Entry; `SELECT *` keeps it, since nobody adds one without a new _SCHEMA.
_FIND = "SELECT * FROM invocations WHERE key = ?"
_UNSETTLED = "SELECT * FROM invocations WHERE state < 3 OR audited = 0"
_INSERT = "INSERT INTO invocations VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
_UPDATE = "UPDATE invocations SET state = ?, outcome = ?, finished_at = ? WHERE key = ?"
_FORGET_OLD = "DELETE FROM invocations WHERE state = 3 AND audited = 1 AND finished_at < ?"
_FORGET_MANY = (
    "DELETE FROM invocations WHERE state = 3 AND audited = 1 AND finished_at <="
    " (SELECT finished_at FROM invocations ORDER BY finished_at DESC LIMIT 1 OFFSET ?)"
)
_CREATE = """
CREATE TABLE IF NOT EXISTS invocations (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, loop_id TEXT NOT NULL, request TEXT NOT NULL,
    caller TEXT NOT NULL, baseline TEXT NOT NULL, state INTEGER NOT NULL, outcome BLOB NOT NULL,
    audited INTEGER NOT NULL, started_at REAL NOT NULL, finished_at REAL NOT NULL, process TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unsettled ON invocations (state, audited) WHERE state < 3 OR audited = 0;
CREATE INDEX IF NOT EXISTS by_age ON invocations (finished_at);
"""


class Entry(NamedTuple):
    """One row. request, caller, baseline: JSON text. outcome: serialized ControlOutcome. Times: epoch
    seconds; finished_at 0 while it is not. process: of the command, as process_mark tells it; "" before."""

    key: str
    fingerprint: str
    loop_id: str
    request: str
    caller: str
    baseline: str
    state: int
    outcome: bytes
    audited: bool
    started_at: float
    finished_at: float
    process: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do for it."""
        return self.state == FINISHED and self.audited

    @property
    def is_running(self) -> bool:
        """Whether its command runs on, though whoever started it may be gone."""
        return self.state == STARTED and is_alive(self.process)

    def read_request(self) -> ControlRequest:
        """The request that was recorded. Raises OpsError `ledger_corrupt`, as those below."""
        with self._reading("request"):
            members: Any = jsontext.parse(self.request)
            members["confirmation"] = Confirmation(*members["confirmation"])
            return ControlRequest(**members)

    def read_baseline(self) -> Observation | None:
        """What the loop was like before the command; None when that was not known."""
        with self._reading("baseline"):
            members: Any = jsontext.parse(self.baseline)
            return None if members is None else Observation(**members)

    def read_outcome(self) -> pb.ControlOutcome:
        """What is known of the outcome."""
        with self._reading("outcome"):
            return pb.ControlOutcome.FromString(self.outcome)

    @contextmanager
    def _reading(self, column: str) -> Iterator[None]:
        try:
            yield
        except (jsontext.JSONError, DecodeError, LookupError, TypeError, ValueError) as error:
            raise OpsError("ledger_corrupt", f"the ledger's {column} of key {self.key} is damaged") from error


def request_text(request: ControlRequest) -> str:
    """A request as it is recorded."""
    members: dict[str, JSON] = request._asdict()
    members["confirmation"] = list(request.confirmation)
    return jsontext.encode(members).decode()


def baseline_text(baseline: Observation | None) -> str:
    """A baseline as it is recorded."""
    return jsontext.encode(None if baseline is None else baseline._asdict()).decode()


class Ledger:
    """The ledger at `path`. Nothing is made before the first `insert`. Thread-safe.

    Every method raises OpsError `ledger_corrupt` or `ledger_unavailable`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._insertions = 0

    def find(self, key: str) -> Entry | None:
        """The row of a key."""
        with self._reading() as connection:
            row = None if connection is None else connection.execute(_FIND, (key,)).fetchone()
        return None if row is None else _entry(row)

    def unsettled(self) -> list[Entry]:
        """Rows that are not finished, or of which there is no audit."""
        with self._reading() as connection:
            rows = [] if connection is None else connection.execute(_UNSETTLED).fetchall()
        return [_entry(row) for row in rows]

    def insert(self, entry: Entry) -> None:
        """Record a row, on disk when this returns.

        Raises OpsError `idempotency_key_conflict` when another loop's request has just taken the key.
        """
        with self._writing() as connection:
            # Before the row, so that nothing can fail after it is there.
            if self._insertions % _PRUNE_EVERY == 0:
                connection.execute(_FORGET_OLD, (entry.started_at - RETENTION_SECONDS,))
                connection.execute(_FORGET_MANY, (RETENTION_ROWS,))
            self._insertions += 1
            try:
                connection.execute(_INSERT, entry)
            except sqlite3.IntegrityError as error:
                raise key_conflict(entry.key) from error

    def update(self, outcome: pb.ControlOutcome, state: int) -> None:
        """Replace outcome and state of its key, on disk when this returns."""
        finished_at = outcome.finished_at.ToNanoseconds() / 1e9
        with self._writing() as connection:
            connection.execute(
                _UPDATE, (state, outcome.SerializeToString(), finished_at, outcome.idempotency_key)
            )

    def note_process(self, key: str, mark: str) -> None:
        """Note which process the command is. Not synced: what loses this note ends that process, too."""
        self._note("UPDATE invocations SET process = ? WHERE key = ?", mark, key)

    def mark_audited(self, key: str) -> None:
        """Note that the audit rows are written. Not synced: who misses this note looks at the rows."""
        self._note("UPDATE invocations SET audited = 1 WHERE key = ?", key)

    def release(self, key: str) -> None:
        """Forget a key whose command provably never ran."""
        with self._writing() as connection:
            connection.execute("DELETE FROM invocations WHERE key = ?", (key,))

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._drop()

    def _note(self, statement: str, *values: str) -> None:
        """Change a row in what other processes see, and leave it to the system when that is on disk."""
        with self._writing() as connection:
            connection.execute("PRAGMA synchronous=NORMAL")
            try:
                connection.execute(statement, values)
            finally:
                connection.execute("PRAGMA synchronous=FULL")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """The connection, held for the block; None when there is no ledger."""
        with self._lock, self._telling():
            yield self._connect() if self._is_current() or os.path.lexists(self._path) else None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """The connection to a ledger that is made if it is missing, held for the block."""
        with self._lock, self._telling():
            yield self._connect()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn errors of the storage into ours."""
        try:
            yield
        except sqlite3.Error as error:
            self._drop()
            raise self._told(error) from error
        except OSError as error:
            raise OpsError("ledger_unavailable", f"cannot use {self._path}: {error.strerror}") from error

    def _is_current(self) -> bool:
        """Whether the connection is to the file that is there: somebody may have moved it away."""
        return self._connection is not None and _identity(self._path) == self._identity

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._is_current():
            return self._connection
        self._drop()
        connection = _open(self._path)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, _identity(self._path)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Settings of a new connection, and tables where there are none."""
        give_up_at = time.monotonic() + _BUSY_SECONDS
        # Those who turn a fresh file to WAL at once do not wait for each other of themselves.
        while not _turned_to_wal(connection, give_up_at):
            time.sleep(_POLL_SECONDS)
        connection.execute("PRAGMA synchronous=FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA:
            raise OpsError("ledger_unavailable", f"{self._path} was written by a newer version")
        if version < _SCHEMA:
            connection.executescript(_CREATE)
            connection.execute(f"PRAGMA user_version={_SCHEMA}")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _told(self, error: sqlite3.Error) -> OpsError:
        name = getattr(error, "sqlite_errorname", "")
        # The statements are right: one that fails as such meets other tables than ours.
        if name == "SQLITE_ERROR" or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return OpsError("ledger_corrupt", f"{self._path} is damaged: {error}")
        return OpsError("ledger_unavailable", f"cannot use {self._path}: {error}")


def key_conflict(key: str) -> OpsError:
    """The refusal of a key that stands for another request."""
    return OpsError(
        "idempotency_key_conflict",
        f"idempotency key {key} stands for another request already; nothing was run",
        field="idempotency_key",
    )


def _open(path: str) -> sqlite3.Connection:
    """A connection to the file, which is made for its owner alone if it is missing."""
    with _opening:
        modes.make_directory(os.path.dirname(path))
        if not os.path.lexists(path):
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, modes.FILE))
        return sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _turned_to_wal(connection: sqlite3.Connection, give_up_at: float) -> bool:
    """Whether it is in WAL mode; False when somebody was in the way, until `give_up_at`."""
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname.startswith("SQLITE_BUSY") and time.monotonic() < give_up_at:
            return False
        raise
    return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _entry(row: tuple[object, ...]) -> Entry:
    entry = Entry._make(row)
    return entry._replace(audited=bool(entry.audited))
