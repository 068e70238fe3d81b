"""Reading on in files that grow, are rotated or are written anew, as `tail -F` does."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress

from spritemesh import rotation
from spritemesh.tracing.reading.reader import BLOCK_BYTES, MAX_LINE_BYTES, LineFiles

# How often a file is looked at, seconds.
POLL_SECONDS = 0.1


class Follower:
    """Reads on in the file at `path`, which need not be there yet. What a line may be is not known here."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._handle = -1
        # Of the first byte that was not read.
        self._position = 0
        self._rest = b""
        # The rest of a line that is too long.
        self._skips = False

    def go_on(self, handle: int, position: int) -> None:
        """Read on at a line start of an open file, whose descriptor stays the caller's."""
        self.close()
        self._handle, self._position = os.dup(handle), position

    def close(self) -> None:
        """Let the file go."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._position, self._rest, self._skips = -1, 0, b"", False

    def read(self) -> Iterator[bytes]:
        """The lines that were completed since, without newlines; of one that is longer than MAX_LINE_BYTES
        only so much. Raises OSError."""
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            # Between two renames, or removed: what is open may still have grown.
            if self._handle >= 0:
                yield from self._more()
            return
        if self._handle >= 0 and os.path.samestat(status, os.fstat(self._handle)):
            if status.st_size < self._position:
                self._position, self._rest, self._skips = 0, b"", False
            yield from self._more()
            return
        yield from self._last_of_old()
        # What moved aside since has nothing to add: whoever writes looks at the name first.
        for handle in self._newer():
            self.close()
            self._handle = handle
            yield from self._more()

    def _last_of_old(self) -> Iterator[bytes]:
        if self._handle >= 0:
            yield from self._more()
            if self._rest:
                yield self._rest

    def _newer(self) -> list[int]:
        """Descriptors of the files that were begun after the one that is open, the oldest first; of the young
        one alone, when none is open."""
        found: list[int] = []
        with rotation.generations(self._path) as opened:
            old = os.fstat(self._handle) if self._handle >= 0 else None
            for number, generation in enumerate(opened):
                status = os.fstat(generation.handle)
                if number and (
                    old is None or os.path.samestat(status, old) or status.st_mtime_ns <= old.st_mtime_ns
                ):
                    break
                found.append(os.dup(generation.handle))
        return found[::-1]

    def _more(self) -> Iterator[bytes]:
        while data := os.pread(self._handle, BLOCK_BYTES, self._position):
            self._position += len(data)
            *lines, rest = data.split(b"\n")
            for line in lines:
                whole, self._rest = self._rest + line, b""
                if not self._skips and whole and not whole.isspace():
                    yield whole
                self._skips = False
            self._rest = b"" if self._skips else self._rest + rest
            if len(self._rest) > MAX_LINE_BYTES:
                yield self._rest[: MAX_LINE_BYTES + 1]
                self._rest, self._skips = b"", True


def followers(paths: Sequence[str], files: LineFiles) -> list[Follower]:
    """One for each path, each behind the last whole line of `files`, which are open."""
    found = []
    for path, region in zip(paths, files.regions, strict=True):
        follower = Follower(path)
        end = files.whole(region).end
        # Only the young file has this name.
        for part in files.parts:
            if part.name == path and part.start <= end <= part.end and part.end == region.end:
                with suppress(OSError):
                    follower.go_on(part.handle, end - part.start)
        found.append(follower)
    return found
