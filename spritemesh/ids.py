"""Ids that cross a trust boundary: validated before they meet a path, a header or a log line."""

import os

from spritemesh.errors import OpsError

# A directory name on every file system that matters (NAME_MAX of Linux).
MAX_LOOP_ID_BYTES = 255
MAX_TRACE_ID_CHARS = 128


def validate_loop_id(loop_id: str, *, field: str = "loop id") -> str:
    """Return `loop_id` if it names a directory directly under .superloop/loops (contract L1).

    Refused with `invalid_loop_id`: empty, more than 255 bytes, `.` or `..`, or holding `/`, `\\`, NUL
    or another control character. Every other id works, spaces and non-ASCII included.
    """
    problem = ""
    if not loop_id:
        problem = "is empty"
    elif loop_id in {".", ".."}:
        problem = "is a relative directory"
    elif "/" in loop_id or "\\" in loop_id:
        problem = "contains a path separator"
    elif has_control(loop_id):
        problem = "contains a control character"
    else:
        try:
            if len(loop_id.encode()) > MAX_LOOP_ID_BYTES:
                problem = f"is longer than {MAX_LOOP_ID_BYTES} bytes"
        except UnicodeEncodeError:
            problem = "is not valid UTF-8"
    if problem:
        raise OpsError("invalid_loop_id", f"{field} {problem}: {printable(loop_id)}", field=field)
    return loop_id


def validate_trace_id(trace_id: str, *, field: str = "trace id") -> str:
    """Return `trace_id`; refuse with `invalid_trace_id` over 128 characters, control characters, or half a
    character, which JSON and command lines can hold and UTF-8 cannot."""
    if len(trace_id) > MAX_TRACE_ID_CHARS:
        raise OpsError(
            "invalid_trace_id", f"{field} is longer than {MAX_TRACE_ID_CHARS} characters", field=field
        )
    if has_control(trace_id):
        raise OpsError("invalid_trace_id", f"{field} contains a control character", field=field)
    try:
        trace_id.encode()
    except UnicodeEncodeError as error:
        raise OpsError("invalid_trace_id", f"{field} is not valid UTF-8", field=field) from error
    return trace_id


def new_trace_id() -> str:
    """A fresh lower-case UUIDv4 (contract 0.4), without importing `uuid` for its 8 ms."""
    bits = bytearray(os.urandom(16))
    bits[6] = bits[6] & 0x0F | 0x40
    bits[8] = bits[8] & 0x3F | 0x80
    digits = bits.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_boot_id() -> str:
    """A random id of one start of a process: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def has_control(text: str) -> bool:
    """Whether `text` holds a character below U+0020, or U+007F to U+009F."""
    return any(char < " " or "\x7f" <= char <= "\x9f" for char in text)


def printable(text: str, limit: int = 80) -> str:
    """`text` quoted for a message: control characters escaped, cut after `limit` characters."""
    cut = text if len(text) <= limit else text[:limit] + "..."
    return ascii(cut) if has_control(cut) or not cut.isprintable() else f"'{cut}'"
