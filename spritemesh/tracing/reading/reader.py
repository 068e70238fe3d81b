"""Lines of files that rotate, read as one text in constant memory, forward or from the end.

All files together are one row of bytes, the oldest first, and a position counts in it. So a line has one
place however many files there are, and who searches can go on behind it. Nothing here knows what the lines
hold.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from spritemesh import rotation
from spritemesh.errors import OpsError

BLOCK_BYTES = 1024 * 1024
# A longer line is damage: nobody writes it, and it would have to be held whole.
MAX_LINE_BYTES = BLOCK_BYTES
_CUT_BYTES = 256


class Chunk(NamedTuple):
    """Neighbouring lines: data[start:stop], which begins with a line and ends with one.

    position: of data[start] in all files. is_cut: it is only the beginning of one line, which is longer
    than MAX_LINE_BYTES. The last line of a file may lack its newline.
    """

    position: int
    data: bytes
    start: int
    stop: int
    is_cut: bool = False

    def lines(self) -> list[bytes]:
        """All lines, without their newlines; blank ones are among them."""
        return self.data[self.start : self.stop].removesuffix(b"\n").split(b"\n")

    def placed(self) -> Iterator[tuple[int, bytes]]:
        """Position and bytes of each line that is not blank."""
        position = self.position
        for line in self.lines():
            if line and not line.isspace():
                yield position, line
            position += len(line) + 1

    def holding(self, needles: Sequence[bytes]) -> list[tuple[int, bytes]]:
        """Position and bytes of the lines that hold one of `needles`, in their order."""
        data, first, stop = self.data, self.start, self.stop
        found: dict[int, bytes] = {}
        for needle in needles:
            start = first
            while (place := data.find(needle, start, stop)) >= 0:
                begin = data.rfind(b"\n", start, place) + 1 or start
                end = data.find(b"\n", place, stop)
                end = stop if end < 0 else end
                found[begin] = data[begin:end]
                start = end + 1
        # Those of one needle are in order already.
        begins = found if len(needles) == 1 else sorted(found)
        return [(self.position + begin - first, found[begin]) for begin in begins]


class Part(NamedTuple):
    """An open file. start, end: its bytes among those of all files."""

    name: str
    handle: int
    start: int
    end: int


class Region(NamedTuple):
    """Bytes from `start` to `end`, both line starts or ends of files."""

    start: int
    end: int


class LineFiles:
    """Open files, as large as they were when they were opened. `regions` has one for each path, which spans
    the old files that it moved aside into as well."""

    def __init__(self, parts: Sequence[Part], regions: Sequence[Region]) -> None:
        self.parts = parts
        self.regions = regions
        self.size = parts[-1].end if parts else 0

    def forward(self, start: int = 0, end: int | None = None) -> Iterator[Chunk]:
        """Chunks from the line start `start` on. Raises OSError."""
        end = self.size if end is None else end
        for part in self.parts:
            position, stop = max(start, part.start), min(end, part.end)
            while position < stop:
                data = _read(part, position, min(BLOCK_BYTES, stop - position))
                if not data:
                    break  # it was made shorter
                length = data.rfind(b"\n") + 1
                if position + len(data) >= stop:
                    length = len(data)
                if length:
                    yield Chunk(position, data, 0, length)
                    position += length
                else:
                    yield Chunk(position, data[:_CUT_BYTES], 0, _CUT_BYTES, is_cut=True)
                    position = _line_end(part, position + len(data), stop)

    def backward(self, start: int = 0, end: int | None = None) -> Iterator[Chunk]:
        """Chunks from the line end `end` back to `start`; the lines of each are in the order of the file.
        Raises OSError."""
        end = self.size if end is None else end
        for part in reversed(self.parts):
            begin, position = max(start, part.start), min(end, part.end)
            while position > begin:
                # One byte more, to see that the first line begins there.
                place = max(begin, position - BLOCK_BYTES - 1)
                data = _read(part, place, position - place)
                if len(data) < position - place:
                    position = place + len(data)
                    if not data:
                        continue
                skip = 0 if place == begin else data.find(b"\n", 0, len(data) - 1) + 1
                if skip or place == begin:
                    yield Chunk(place + skip, data, skip, len(data))
                    position = place + skip
                else:
                    position = _line_start(part, place, begin)
                    data = _read(part, position, _CUT_BYTES)
                    yield Chunk(position, data, 0, len(data), is_cut=True)

    def whole(self, region: Region) -> Region:
        """The region without an unfinished line at its end. Raises OSError."""
        end = region.end
        for part in self.parts:
            if part.start < end == part.end and _read(part, end - 1, 1) != b"\n":
                end = _line_start(part, end, part.start)
        return Region(region.start, end)

    def read(self, position: int, size: int) -> bytes:
        """Up to `size` bytes of the one file that has `position`. Raises OSError."""
        for part in self.parts:
            if part.start <= position < part.end:
                return _read(part, position, min(size, part.end - position))
        return b""

    def place(self, position: int) -> tuple[str, int]:
        """File and line number, from 1, of a line. Raises OSError."""
        for part in self.parts:
            if part.start <= position < part.end:
                lines = 1
                for begin in range(part.start, position, BLOCK_BYTES):
                    lines += _read(part, begin, min(BLOCK_BYTES, position - begin)).count(b"\n")
                return part.name, lines
        return "", 0


@contextmanager
def opened(
    paths: Iterable[str], *, keep: int = rotation.KEEP, what: str = "trace file", may_lack: bool = False
) -> Iterator[LineFiles]:
    """The files at `paths`, each behind the old ones that it moved aside into.

    what: how messages call them. may_lack: one that is not there counts as empty. Raises OpsError
    `trace_file_not_found`, or `document_invalid` when one is no file or may not be read.
    """
    parts: list[Part] = []
    regions: list[Region] = []
    end = 0
    with ExitStack() as stack:
        for path in paths:
            start = end
            generations = stack.enter_context(rotation.generations(_checked(path, what), keep=keep))
            if not generations and not may_lack:
                raise OpsError("trace_file_not_found", f"there is no {what} {path}", field="--file")
            for generation in reversed(generations):
                size = os.fstat(generation.handle).st_size
                parts.append(Part(generation.name, generation.handle, end, end + size))
                end += size
            regions.append(Region(start, end))
        yield LineFiles(parts, regions)


def _checked(path: str, what: str) -> str:
    """`path`, unless there is something at it that cannot be read from its end, or not at all."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
            raise OpsError("document_invalid", f"{what} {path} is {kind}", field="--file")
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        pass  # old files may be there all the same
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or "not a path"
        raise OpsError("document_invalid", f"{what} {path} cannot be read: {told}", field="--file") from error
    return path


def _read(part: Part, position: int, size: int) -> bytes:
    return os.pread(part.handle, size, position - part.start)


def _line_end(part: Part, position: int, stop: int) -> int:
    """Where the line after the one at `position` starts."""
    while position < stop and (data := _read(part, position, min(BLOCK_BYTES, stop - position))):
        if (place := data.find(b"\n")) >= 0:
            return position + place + 1
        position += len(data)
    return stop


def _line_start(part: Part, position: int, begin: int) -> int:
    """Where the line that goes on at `position` starts."""
    while position > begin:
        place = max(begin, position - BLOCK_BYTES)
        if (found := _read(part, place, position - place).rfind(b"\n")) >= 0:
            return place + found + 1
        position = place
    return begin
