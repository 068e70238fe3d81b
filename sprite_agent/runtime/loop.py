"""One loop of a repository, as everything above sees it: head, snapshot, feed."""

import os
import time
from collections.abc import Callable

from sprite_agent.runtime.eventlog import Head, LogIndex
from sprite_agent.runtime.events import is_event
from sprite_agent.runtime.feed import EventFeed, FeedOptions
from sprite_agent.runtime.identity import Identity
from sprite_agent.runtime.layout import loop_paths
from sprite_agent.runtime.ownheartbeat import HeartbeatNews
from sprite_agent.runtime.snapshot import LoopFiles, derive_snapshot, parse_last_event
from sprite_agent.runtime.statefiles import MAX_SUMMARY_BYTES, StateFiles
from spritemesh.errors import OpsError
from spritemesh.ids import printable
from spritemesh.times import format_utc
from superloop.ops.v1 import envelope_pb2 as pb

# A message with such a snapshot, and with a run id of the caller's, stays below gRPC's limit of 4 MiB.
_MAX_SNAPSHOT_BYTES = 7 * 512 * 1024


class LoopReader:
    """Reads one loop; keeps what it read, so that asking again costs a few stat calls.

    Made for an id that is validated here (OpsError `invalid_loop_id`). Whether the loop exists is checked
    at every reading (`loop_not_found`, `events_missing`). identity: who answers now. clock: seconds since
    1970.
    """

    def __init__(
        self,
        repo: str,
        loop_id: str,
        *,
        identity: Callable[[], Identity] = Identity,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.repo = repo
        self.loop_id = loop_id
        self.paths = loop_paths(loop_id)
        self.log = LogIndex(os.path.join(repo, self.paths.events))
        self._identity = identity
        self._clock = clock
        self._files = StateFiles(repo)
        self._heartbeat_news = HeartbeatNews(self._files, repo, self.paths.heartbeat)
        self._derived: tuple[object, pb.LoopRunSnapshot] | None = None

    def close(self) -> None:
        """Release the log file."""
        self.log.close()

    def head(self) -> Head:
        """The end of the log. Raises OpsError `loop_not_found`, `events_missing` or `log_unavailable`."""
        try:
            return self.log.refresh()
        except OpsError as error:
            raise self._missing(error) from error

    def snapshot(
        self, *, run_id: str = "", trace_id: str | None = None, pass_invalid_lines: bool = False
    ) -> pb.LoopRunSnapshot:
        """The snapshot as of now (contract B). Raises OpsError naming the file at fault.

        pass_invalid_lines: tell of the last line that is an event, where v1 fails at a last line that is
        none.
        """
        # The head first: a snapshot may be newer than its place, never older.
        return self._stamp(self._derive(self.head(), pass_invalid_lines), run_id, trace_id)

    def snapshot_if_unchanged(
        self, *, run_id: str = "", trace_id: str | None = None
    ) -> pb.LoopRunSnapshot | None:
        """As snapshot when nothing changed since the last one; None when files must be read."""
        head = self.log.refresh_if_idle()
        if head is None or self._derived is None or self._derived[0] != self._signature(head):
            return None
        return self._stamp(self._derived[1], run_id, trace_id)

    def feed(self, options: FeedOptions) -> EventFeed:
        """A new feed; nothing is read before its open()."""
        return EventFeed(
            self.log,
            pb.Source(repo_path=self.repo, loop_id=self.loop_id),
            options,
            snapshot=lambda: self.snapshot(trace_id=options.trace_id, pass_invalid_lines=True),
            state=self._news_signature,
            identity=self._identity(),
            clock=self._clock,
        )

    def _signature(self, head: Head) -> object:
        return head, self._state_signature(), self._files.signature(self.paths.heartbeat)

    def _news_signature(self) -> object:
        """What changes when those who follow the loop should hear of a state file."""
        return self._state_signature(), self._heartbeat_news.signature()

    def _state_signature(self) -> object:
        """Of all state files but the heartbeat."""
        paths = self.paths
        return (
            self._files.signature(paths.state),
            self._files.signature(paths.active_run),
            self._files.signature(paths.approval),
            self._files.signature(paths.run_summary),
        )

    def _derive(self, head: Head, pass_invalid_lines: bool) -> pb.LoopRunSnapshot:
        signature = self._signature(head)
        if self._derived is not None and self._derived[0] == signature:
            return self._derived[1]
        last = self.log.last_line(head)
        passed = pass_invalid_lines and last is not None and not is_event(last[1])
        if passed:
            last = self.log.last_line(head, wanted=is_event)
        event = parse_last_event(self.paths, last)
        files = LoopFiles(
            state=self._files.read(self.paths.state),
            active_run=self._files.read(self.paths.active_run),
            approval=self._files.read(self.paths.approval),
            run_summary=self._files.read(self.paths.run_summary, limit=MAX_SUMMARY_BYTES),
            heartbeat=self._files.read(self.paths.heartbeat),
        )
        derived = derive_snapshot(self.repo, self.loop_id, self.paths, head, event, files)
        if derived.ByteSize() > _MAX_SNAPSHOT_BYTES:
            largest = max(files, key=lambda file: file.reference.size_bytes).reference.path
            raise OpsError(
                "artifact_too_large",
                f"the snapshot would exceed {_MAX_SNAPSHOT_BYTES} bytes; its largest file is {largest}",
            )
        if not passed:  # else the next caller may want the failure
            self._derived = (signature, derived)
        return derived

    def _stamp(self, derived: pb.LoopRunSnapshot, run_id: str, trace_id: str | None) -> pb.LoopRunSnapshot:
        snapshot = pb.LoopRunSnapshot()
        snapshot.CopyFrom(derived)
        snapshot.emitted_at = format_utc(self._clock())
        if trace_id is not None:
            snapshot.trace_id = trace_id
        if run_id:
            snapshot.run.run_id = run_id
        return snapshot

    def _missing(self, error: OpsError) -> OpsError:
        """A better word for a missing log when the whole loop is missing."""
        directory = os.path.join(self.repo, self.paths.directory)
        if error.reason == "events_missing" and not os.path.isdir(directory):
            return OpsError(
                "loop_not_found", f"loop {printable(self.loop_id)} not found: {directory}", field="loop_id"
            )
        return error
