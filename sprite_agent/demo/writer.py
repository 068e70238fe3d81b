"""Carries the steps of a script out on disk, in the runtime's places (contract A).

State files are replaced whole and the log grows by whole lines, so that a reader, or a signal at any
moment, never meets half of anything.
"""

import hashlib
import os
from collections.abc import Callable

from sprite_agent.demo import documents
from sprite_agent.demo.documents import ARTIFACTS, Document
from sprite_agent.demo.steps import ActiveRun, Entry, Log, RemoveApproval, Report, Request, State
from sprite_agent.runtime.layout import loop_paths
from spritemesh import files, jsontext, times
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.values import get, whole

# Every entry is rewritten with the file at each iteration: an endless demonstration keeps the newest.
MAX_SUMMARY_ENTRIES = 200
APPROVAL_STATES = ("pending", "approved", "rejected")


class Writer:
    """Writes one run's artifacts. repo: absolute. clock: seconds since 1970."""

    def __init__(self, repo: str, loop_id: str, run_id: str, clock: Callable[[], float]) -> None:
        self._repo = repo
        self._loop_id = loop_id
        self._run_id = run_id
        self._clock = clock
        self._paths = loop_paths(loop_id)

    def now(self) -> str:
        """The time as the runtime writes it."""
        return times.format_utc(self._clock())

    def write(self, step: Log | State | ActiveRun | Report | Entry | Request | RemoveApproval) -> None:
        """Carry one step out. Raises OSError or OpsError when a file cannot be written or used."""
        match step:
            case Log():
                self._log(step)
            case State(active, iteration, loop_id):
                self._replace(
                    self._paths.state,
                    documents.state(active=active, iteration=iteration, loop_id=loop_id, now=self.now()),
                )
            case ActiveRun():
                self._active_run(step)
            case Report(name, text):
                path = os.path.join(self._repo, self._paths.directory, name)
                files.write_atomic(path, text.encode(), private=False)
            case Entry(entry):
                self._append_entry(entry)
            case Request(approval):
                self._replace(self._paths.approval, approval)
            case RemoveApproval():
                remove(os.path.join(self._repo, self._paths.approval))

    def remove_active_run(self) -> None:
        """What the runtime does last."""
        remove(os.path.join(self._repo, self._paths.active_run))

    def _log(self, step: Log) -> None:
        row = documents.event_row(
            timestamp=self.now(),
            event=step.event,
            loop_id=self._loop_id,
            run_id=self._run_id,
            iteration=step.iteration,
            role=step.role,
            status=step.status,
            data=step.data,
        )
        files.append_rows(os.path.join(self._repo, self._paths.events), [row], private=False)

    def _active_run(self, step: ActiveRun) -> None:
        document = documents.active_run(
            repo=self._repo,
            pid=os.getpid(),
            pgid=os.getpgrp(),
            loop_id=step.loop_id,
            iteration=step.iteration,
            stage=step.stage,
            now=self.now(),
        )
        path = os.path.join(self._repo, self._paths.active_run)
        files.write_atomic(path, jsontext.pretty(document) + b"\n", private=False)

    def _append_entry(self, entry: Document) -> None:
        path = os.path.join(self._repo, self._paths.run_summary)
        earlier = get(files.read_object(path, what="run summary"), "entries")
        entries: list[JSON] = earlier if isinstance(earlier, list) else []
        entries.append({**entry, "artifacts": self._references()})
        self._replace(
            self._paths.run_summary,
            documents.run_summary(
                loop_id=self._loop_id, entries=entries[-MAX_SUMMARY_ENTRIES:], now=self.now()
            ),
        )

    def _references(self) -> Document:
        return {
            name: self._reference(os.path.join(self._paths.directory, at)) for name, at in ARTIFACTS.items()
        }

    def _reference(self, relative: str) -> Document:
        """One named reference of an entry, as the file is now."""
        try:
            with open(os.path.join(self._repo, relative), "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                changed = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            return {"path": relative, "exists": False}
        return {"path": relative, "exists": True, "sha256": digest, "mtime": times.format_utc(changed)}

    def _replace(self, relative: str, document: Document) -> None:
        files.write_atomic(
            os.path.join(self._repo, relative), jsontext.encode(document) + b"\n", private=False
        )


def read_approval(repo: str, loop_id: str) -> Document | None:
    """The loop's approval.json; None when there is none.

    Raises OpsError `document_invalid`, naming the file, when it is not of the form of contract A.2.
    """
    path = os.path.join(repo, loop_paths(loop_id).approval)
    approval = files.read_object(path, what="approval")
    if approval is None:
        return None
    usable = (
        approval.get("status") in APPROVAL_STATES
        and whole(approval.get("iteration")) is not None
        and isinstance(approval.get("run_id"), str)
        and isinstance(get(approval, "candidate", "gates"), dict)
    )
    if not usable:
        raise OpsError("document_invalid", f"{path} lacks status, run_id, iteration or candidate gates")
    return approval


def remove(path: str) -> bool:
    """Remove a file; whether it was there. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True
