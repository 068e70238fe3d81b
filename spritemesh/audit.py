"""The audit of control: three files of a loop's manager directory, synced before anybody hears "done".

Telemetry fails open, control fails closed: what cannot be recorded is not run (`audit_unavailable`). Beside
the audit of invocations there is a hash chain (`spritemesh.auditchain`), which says who connected, too.
"""

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from spritemesh import chaining, files, jsontext, modes
from spritemesh.bridge.control import Facts, control_row, intent_row, invocation_row
from spritemesh.bridge.told import REFUSED, Told
from spritemesh.chaining import ChainFiles
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc, format_utc_milliseconds
from spritemesh.values import drop, get, nz

# More than the three rows of one request: a note and an output tail are bounded.
_RESERVE_BYTES = 512 * 1024
# Among so many rows one is looked for before it is written again.
_TAIL_ROWS = 1000


class AuditFiles(NamedTuple):
    """Absolute paths. intents: what was asked; control: telemetry; invocations: how it was done."""

    intents: str
    control: str
    invocations: str

    @property
    def chained(self) -> ChainFiles:
        """The invocations with their chain."""
        stem = self.invocations.removesuffix(".jsonl")
        return ChainFiles(self.invocations, f"{stem}.chain.jsonl", f"{stem}.chain.head")


def audit_files(ops: str) -> AuditFiles:
    """The files in the manager directory `ops` of a loop (contract 0.6)."""
    return AuditFiles(
        intents=os.path.join(ops, "intents.jsonl"),
        control=os.path.join(ops, "telemetry", "control.jsonl"),
        invocations=os.path.join(ops, "telemetry", "control-invocations.jsonl"),
    )


def check_writable(paths: AuditFiles) -> None:
    """Refuse with `audit_unavailable` unless rows could be appended now; leaves no trace where they can.

    Missing directories are made. Space is tried beside the files, so that no reader meets the trial.
    """
    every = {*paths, *paths.chained}
    try:
        # Space is that of a device; whether a file can be made, a matter of its directory.
        to_try = {_device(path): os.path.dirname(path) for path in every}
        directories = set(to_try.values()).union(os.path.dirname(path) for path in every if not _opens(path))
        for directory in directories:
            _try_space(directory)
    except OSError as error:
        raise OpsError(
            "audit_unavailable", f"cannot write {error.filename}: {error.strerror}; nothing was run"
        ) from error


def record(
    paths: AuditFiles,
    told: Told,
    facts: Facts,
    *,
    connected: Mapping[str, JSON] | None = None,
    only_missing: bool = False,
) -> dict[str, JSON]:
    """Append the row of each file, synced, and return that of intents.jsonl.

    connected: who connected, for the chain alone: v1's rows have no member for it. only_missing: leave out
    rows that are among the last of their file already; after a crash some may be.

    Of a refusal there is only the row of invocations: intents.jsonl and its telemetry hold what was run,
    and health judges by their last row. Raises OpsError `audit_unavailable`.
    """
    row = intent_row(told, facts)
    rows = [(paths.invocations, invocation_row(told, facts))]
    if told.status != REFUSED:
        rows = [(paths.intents, row), (paths.control, control_row(told, facts)), *rows]
    for path, line in rows:
        try:
            recorded = _recorded(path, facts) if only_missing else b""
            if path == paths.invocations:
                chain = chaining.complete if recorded else chaining.append
                chain(paths.chained, recorded or files.row_lines([line]), _about(facts, connected))
            elif not recorded:
                files.append_rows(path, [line], sync=True)
        except OSError as error:
            raise OpsError(
                "audit_unavailable",
                f"cannot write {error.filename or path}: {error.strerror};"
                f" the request with key {facts.idempotency_key} ended: {told.status}",
            ) from error
    return row


def _about(facts: Facts, connected: Mapping[str, JSON] | None) -> dict[str, JSON]:
    """What the chain says of a request beside its line."""
    return drop(
        {
            "at": format_utc_milliseconds(facts.finished_at),
            "requestedBy": nz(facts.requested_by),
            "traceId": nz(facts.trace_id),
            "idempotencyKey": nz(facts.idempotency_key),
            "connected": dict(connected) if connected else None,
        }
    )


def _recorded(path: str, facts: Facts) -> bytes:
    """The line of this execution among the last ones, with a newline; b"" when there is none. Raises OSError.

    Others may have its key: refusals, and what did not run before, after which the key was free again.
    """
    wanted = facts.idempotency_key, facts.trace_id, facts.intent
    began = format_utc(facts.started_at)
    for line in files.tail_lines(path, _TAIL_ROWS):
        try:
            row = jsontext.parse(line)
        except jsontext.JSONError:
            continue
        ended = get(row, "timestamp")
        if (
            (get(row, "idempotencyKey"), get(row, "traceId"), get(row, "intent")) == wanted
            and get(row, "outcome", "status") != REFUSED
            and isinstance(ended, str)
            and ended >= began
        ):
            return line + b"\n"
    return b""


def _device(path: str) -> int:
    """The device of a file's directory, which is made if it is missing. Raises OSError."""
    directory = os.path.dirname(path)
    try:
        return os.stat(directory).st_dev
    except FileNotFoundError:
        modes.make_directory(directory)
        return os.stat(directory).st_dev


def _opens(path: str) -> bool:
    """Whether there is a file that can be appended to; False when there is none. Raises OSError."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK))
    except FileNotFoundError:
        if os.path.lexists(path):
            raise  # a link that leads nowhere
        return False
    return True


def _try_space(directory: str) -> None:
    """Reserve space for rows and give it back. Raises OSError with the file's name.

    The trial has the same name each time, so that what a crash leaves goes with the next one. Trials at the
    same time share it; that of another user is let alone.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    probe = os.path.join(directory, ".audit.tmp")
    try:
        handle = os.open(probe, flags, modes.FILE)
    except PermissionError:
        probe = os.path.join(directory, f".audit-{os.urandom(8).hex()}.tmp")
        handle = os.open(probe, flags | os.O_EXCL, modes.FILE)
    try:
        os.posix_fallocate(handle, 0, _RESERVE_BYTES)
    except OSError as error:
        # A file system that cannot reserve says nothing about space.
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL}:
            raise OSError(error.errno, error.strerror, directory) from error
    finally:
        os.close(handle)
        with suppress(FileNotFoundError):
            os.unlink(probe)
