"""What the one step of a loop takes and gives: wishes, what was known, what arrived, what came of it."""

from typing import NamedTuple

from manager.core.cursor import Cursor, Place
from manager.core.escalation import EvidenceFiles
from manager.core.health import Condition
from manager.core.intake import BadLine
from manager.core.sequence import LogChange, Numbers
from manager.core.thresholds import Thresholds
from spritemesh.jsontext import JSON
from superloop.ops.v1 import envelope_pb2 as pb


class Settings(NamedTuple):
    """What the caller wants; constant for a pass or a session.

    profiles: names in the threshold catalog (L21). transport: as documents say. snapshot_file,
    events_file: evidence of the projection, files that last (L24). Drift settings as evaluate_drift.
    """

    repo_path: str
    loop_id: str
    trace_id: str | None
    transport: str
    thresholds: Thresholds
    profile: str
    profiles: frozenset[str]
    min_confidence: str
    required_streak: int
    window: int
    max_events: int
    from_start: bool
    retry_attempts: int
    retry_backoff_seconds: int
    snapshot_file: str
    events_file: str
    reconcile_file: str
    control_file: str
    evidence: EvidenceFiles


class Known(NamedTuple):
    """What the files said before. Documents are None when absent or damaged; rows are the last ones of
    their file, None when the file cannot be read at all, damaged_lines those among them left out."""

    cursor: Cursor = Cursor()
    state: JSON = None
    health: JSON = None
    heartbeat: JSON = None
    sequence: JSON = None
    transport_health: JSON = None
    drift: JSON = None
    last_intent: JSON = None
    reconcile_rows: list[JSON] | None = None
    control_rows: list[JSON] | None = None
    damaged_lines: int = 0
    damaged_documents: tuple[str, ...] = ()


class Arrived(NamedTuple):
    """What the transport brought.

    last_event: v1 envelope of the last new event. numbers: sequence values of the new events. offset, place,
    line_count: where reading got to. failure_code: why it failed (contract G.1), "" when it did not.

    Of a live session only: projects False when no snapshot for `place` has come yet, so that the state stays
    but for its last event. heartbeat: newer than the snapshot's, else None. transport_health: the document,
    judged already. conditions: what else health must tell.
    """

    snapshot: pb.LoopRunSnapshot | None = None
    last_event: JSON = None
    numbers: Numbers = Numbers()
    offset: int = 0
    place: Place = Place()
    line_count: int = 0
    change: LogChange | None = None
    bad_lines: tuple[BadLine, ...] = ()
    replayed: int = 0
    failure_code: str = ""
    failure_message: str = ""
    projects: bool = True
    heartbeat: JSON = None
    transport_health: dict[str, JSON] | None = None
    conditions: tuple[Condition, ...] = ()


class Outcome(NamedTuple):
    """What to write and append; None and empty where a file stays as it is. drift: empty in a brief step."""

    failure_code: str
    state: dict[str, JSON] | None
    health: dict[str, JSON]
    heartbeat: dict[str, JSON] | None
    sequence: dict[str, JSON] | None
    transport_health: dict[str, JSON]
    drift: dict[str, JSON]
    cursor: dict[str, JSON] | None
    heartbeat_row: dict[str, JSON] | None
    sequence_row: dict[str, JSON] | None
    reconcile_row: dict[str, JSON]
    drift_row: dict[str, JSON] | None
    quarantine_rows: list[dict[str, JSON]]
    escalations: list[dict[str, JSON]]

    @property
    def document(self) -> JSON:
        """What the pass prints: the state, or the health when it failed."""
        return self.health if self.failure_code or self.state is None else self.state
