"""The runtime's small JSON files, read again only when their stat signature changed (contract L7)."""

import hashlib
import os
import stat
from typing import NamedTuple

from spritemesh import files, jsontext
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON
from superloop.ops.v1 import envelope_pb2 as pb

# run-summary.json grows with every iteration and only its last entry travels; the others travel whole
# and must leave room in one message.
MAX_SUMMARY_BYTES = 64 * 1024 * 1024
MAX_STATE_BYTES = 768 * 1024


class StateFile(NamedTuple):
    """One file as it was read. text: the JSON as written, "" when there is no file."""

    value: JSON
    text: str
    reference: pb.ArtifactRef

    @property
    def message(self) -> pb.JsonObject | None:
        """The content as it travels; None, to be left unset, for null or a missing file."""
        return None if self.value is None else pb.JsonObject(json=self.text)


class StateFiles:
    """Reads files of one repository; keeps the last reading of each."""

    def __init__(self, repo: str) -> None:
        self._repo = repo
        self._cache: dict[str, tuple[tuple[int, ...] | None, StateFile]] = {}

    def signature(self, relative: str) -> tuple[int, ...] | None:
        """What changes when the file changes; None when there is no regular file."""
        try:
            status = os.stat(os.path.join(self._repo, relative))
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return files.signature(status)

    def is_current(self, relative: str) -> bool:
        """Whether read() would bring the last reading again, for a stat."""
        cached = self._cache.get(relative)
        return cached is not None and cached[0] == self.signature(relative)

    def read(self, relative: str, *, limit: int = MAX_STATE_BYTES) -> StateFile:
        """The file at a path relative to the repository.

        Raises OpsError `artifact_invalid` or `artifact_too_large`, naming the path.
        """
        signature = self.signature(relative)
        cached = self._cache.get(relative)
        if cached is not None and cached[0] == signature:
            return cached[1]
        found = self._load(relative, limit) if signature is not None else None
        if found is None:
            found = StateFile(None, "", pb.ArtifactRef(path=relative))
        self._cache[relative] = (signature, found)
        return found

    def _load(self, relative: str, limit: int) -> StateFile | None:
        path = os.path.join(self._repo, relative)
        try:
            with open(path, "rb") as file:
                data = file.read(limit + 1)
                mtime = int(os.fstat(file.fileno()).st_mtime)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OpsError("artifact_invalid", f"cannot read {relative}: {error.strerror}") from error
        if len(data) > limit:
            raise OpsError("artifact_too_large", f"{relative} is larger than {limit} bytes")
        try:
            value = jsontext.parse(data)
        except jsontext.JSONError as error:
            raise OpsError("artifact_invalid", f"invalid JSON in {relative}: {error}") from error
        reference = pb.ArtifactRef(
            path=relative,
            exists=True,
            size_bytes=len(data),
            line_count=data.count(b"\n"),
            sha256=hashlib.sha256(data).hexdigest(),
            mtime_epoch=mtime,
        )
        return StateFile(value, data.decode("utf-8", "replace"), reference)
