"""Whether this process is traced, and where to: an argument over the environment over a settings file.

A wrong setting never stops the traced program: it is ignored, and said once.
"""

import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

from spritemesh.errors import kind_of, one_line
from spritemesh.ids import printable
from spritemesh.names import (
    TRACE_ID_VARIABLE,
    TRACE_PARENT_VARIABLE,
    TRACING_FILE_VARIABLE,
    TRACING_SETTINGS_FILE,
    TRACING_SETTINGS_VARIABLE,
    TRACING_VARIABLE,
)
from spritemesh.tracing.identity import is_trace_id

LEVEL_VARIABLE = "DOPEJAR_TRACE_LEVEL"
MAX_BYTES_VARIABLE = "DOPEJAR_TRACE_MAX_BYTES"

DEFAULT_OUTPUT = "trace.jsonl"
# The level, and which statuses it writes; "debug" also tells process and thread.
LEVELS: Mapping[str, frozenset[str]] = {
    "debug": frozenset({"success", "blocked", "error"}),
    "info": frozenset({"success", "blocked", "error"}),
    "warning": frozenset({"blocked", "error"}),
    "error": frozenset({"error"}),
}
DEFAULT_LEVEL = "info"
DEFAULT_MAX_BYTES = 64 * 1024 * 1024
# A file moves aside no sooner than that.
SMALLEST_MAX_BYTES = 4 * 1024
# A settings file may have so many bytes; reading them takes half a second.
_LARGEST_FILE = 64 * 1024

# Members of section `tracing` of a settings file.
_MEMBERS = ("enabled", "output", "level")
# So many others are named in a warning.
_NAMED_OTHERS = 3

_SWITCHES = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(
    ("0", "false", "no", "off"), False
)


class Settings(NamedTuple):
    """enabled: whether to trace. output: path of the trace file. level: one of LEVELS. max_bytes: size at
    which the file moves aside. parent_id: id of a span of the process that started this one, "" for none.
    ops_trace_id: of the control command that this is, "" for none. problems: what is said about settings that
    are ignored, one line each."""

    enabled: bool
    output: str = DEFAULT_OUTPUT
    level: str = DEFAULT_LEVEL
    max_bytes: int = DEFAULT_MAX_BYTES
    parent_id: str = ""
    ops_trace_id: str = ""
    problems: tuple[str, ...] = ()


def resolved(
    environment: Mapping[str, str],
    *,
    enabled: object = None,
    output: object = None,
    level: object = None,
) -> Settings:
    """The settings of a process. The others are arguments that were given; None for one that was not."""
    problems: list[str] = []
    on = _switch(enabled, "enabled", problems)
    if on is None:
        on = _switch(environment.get(TRACING_VARIABLE) or None, TRACING_VARIABLE, problems)
    if on is False:
        return Settings(enabled=False, problems=tuple(problems))
    section = _section(environment, problems)
    if on is None:
        on = _switch(section.get("enabled"), "tracing.enabled", problems, words="true or false")
    if on is False or not (on or problems):
        return Settings(enabled=False, problems=tuple(problems))
    found = Settings(
        enabled=True,
        output=_path(output, "output", problems)
        or environment.get(TRACING_FILE_VARIABLE)
        or _path(section.get("output"), "tracing.output", problems)
        or DEFAULT_OUTPUT,
        level=_level(level, "level", problems)
        or _level(environment.get(LEVEL_VARIABLE) or None, LEVEL_VARIABLE, problems)
        or _level(section.get("level"), "tracing.level", problems)
        or DEFAULT_LEVEL,
        max_bytes=_size(environment.get(MAX_BYTES_VARIABLE), problems),
        parent_id=_parent(environment.get(TRACE_PARENT_VARIABLE), problems),
        ops_trace_id=environment.get(TRACE_ID_VARIABLE, ""),
        problems=tuple(problems),
    )
    # Off because of what is wrong: all that is wrong is told at once.
    return found if on else Settings(enabled=False, problems=found.problems)


def warn(text: str) -> None:
    """One line on standard error, if there is one."""
    try:
        sys.stderr.write(f"spritemesh: {one_line(text)}\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        return


def _switch(value: object, name: str, problems: list[str], words: str = "1 or 0") -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    word = str(value).strip().lower() if isinstance(value, str | int) else ""
    if word not in _SWITCHES:
        problems.append(f"{name} has to be {words}, not {_told(value)}; ignored")
    return _SWITCHES.get(word)


def _level(value: object, name: str, problems: list[str]) -> str | None:
    if value is None:
        return None
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in LEVELS:
        return word
    problems.append(f"{name} has to be one of {', '.join(LEVELS)}, not {_told(value)}; ignored")
    return None


def _path(value: object, name: str, problems: list[str]) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, os.PathLike):
        try:
            value = os.fspath(value)
        except Exception:
            value = None
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    if isinstance(value, str) and "\0" not in value:
        return value
    problems.append(f"{name} has to be the path of a file, not {_told(value)}; ignored")
    return None


def _size(text: str | None, problems: list[str]) -> int:
    if not text:
        return DEFAULT_MAX_BYTES
    if text.isascii() and text.isdigit() and len(text) <= 18 and int(text) >= SMALLEST_MAX_BYTES:
        return int(text)
    problems.append(
        f"{MAX_BYTES_VARIABLE} has to be a number of bytes, {SMALLEST_MAX_BYTES} or more, "
        f"not {_told(text)}; ignored"
    )
    return DEFAULT_MAX_BYTES


def _parent(text: str | None, problems: list[str]) -> str:
    if not text or is_trace_id(text):
        return text or ""
    problems.append(f"{TRACE_PARENT_VARIABLE} has to be a trace id, not {_told(text)}; ignored")
    return ""


def _section(environment: Mapping[str, str], problems: list[str]) -> dict[str, object]:
    """Section `tracing` of the settings file; {} when there is none."""
    named = environment.get(TRACING_SETTINGS_VARIABLE)
    path = named or TRACING_SETTINGS_FILE
    try:
        # Not waiting, if somebody has put a pipe there.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            data = file.read(_LARGEST_FILE + 1) or b""
    except OSError as error:
        if named or not isinstance(error, FileNotFoundError | NotADirectoryError):
            problems.append(f"{path} cannot be read: {error.strerror}; ignored")
        return {}
    if b"tracing" not in data:
        return {}
    document = _parsed(data, path, problems)
    section = document.get("tracing") if isinstance(document, dict) else None
    if section is None:
        return {}
    if not isinstance(section, dict):
        problems.append(f"{path}: tracing has to be an object, not {kind_of(section)}; ignored")
        return {}
    others = [_told(name) for name in section if name not in _MEMBERS]
    if others:
        more = ", ..." if len(others) > _NAMED_OTHERS else ""
        problems.append(
            f"{path}: tracing has no {', '.join(others[:_NAMED_OTHERS])}{more}, "
            f"only {', '.join(_MEMBERS)}; ignored"
        )
    if not named and "output" in section and not _is_below(section["output"]):
        problems.append(
            f"{path}: tracing.output has to be a path below the working directory, unless "
            f"{TRACING_SETTINGS_VARIABLE} names the file; ignored"
        )
        del section["output"]
    return section


def _parsed(data: bytes, path: str, problems: list[str]) -> object:
    if len(data) > _LARGEST_FILE:
        problems.append(f"{path} has more than {_LARGEST_FILE} bytes; ignored")
        return None
    try:
        import yaml  # only where there is a section to read

        # Not the faster one in C, which brackets in brackets make crash.
        return yaml.safe_load(data)
    except ImportError:
        problems.append(f"{path} cannot be read without PyYAML; ignored")
        return None
    except Exception:  # the reader's own, and what values like dates raise
        problems.append(f"{path} is no YAML; ignored")
        return None


def _is_below(output: object) -> bool:
    """Whether a path stays in the working directory. A repository that somebody else wrote may come with such
    a file, and must not choose which of our files grow and move aside."""
    if not isinstance(output, str) or "\0" in output:
        return True  # refused as no path
    directory = os.path.realpath(os.curdir)
    return os.path.realpath(output).startswith(directory.rstrip("/") + "/")


def _told(value: object) -> str:
    return printable(value) if isinstance(value, str) else kind_of(value)
