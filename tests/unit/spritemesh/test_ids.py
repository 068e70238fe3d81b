"""Ids that cross a trust boundary (contract 0.4, L1)."""

import re
import subprocess
import sys

import pytest

from spritemesh.errors import OpsError
from spritemesh.ids import (
    MAX_LOOP_ID_BYTES,
    MAX_TRACE_ID_CHARS,
    new_boot_id,
    new_trace_id,
    printable,
    validate_loop_id,
    validate_trace_id,
)


@pytest.mark.parametrize(
    "loop_id",
    ["alpha", "my loop", " ", "-rf", "--help", "...", ".hidden", "a..b", "schleife-ä", "ループ", "😀",
     "a:b*?", "~", "$HOME", "%2e%2e", "é" * 127, "x" * MAX_LOOP_ID_BYTES],
)  # fmt: skip
def test_loop_id_that_names_a_directory_works(loop_id: str) -> None:
    assert validate_loop_id(loop_id) == loop_id


@pytest.mark.parametrize(
    ("loop_id", "problem"),
    [
        ("", "empty"),
        (".", "relative"),
        ("..", "relative"),
        ("../x", "separator"),
        ("a/b", "separator"),
        ("/", "separator"),
        ("a\\b", "separator"),
        ("a\0b", "control"),
        ("a\nb", "control"),
        ("\x1b[31m", "control"),
        ("a\x7f", "control"),
        ("a\x85b", "control"),
        ("x" * (MAX_LOOP_ID_BYTES + 1), "longer"),
        ("é" * 128, "longer"),
        ("a\udcff", "UTF-8"),
    ],
)
def test_loop_id_that_could_leave_its_directory_is_refused(loop_id: str, problem: str) -> None:
    with pytest.raises(OpsError) as caught:
        validate_loop_id(loop_id, field="--loop")
    error = caught.value
    assert (error.reason, error.field) == ("invalid_loop_id", "--loop")
    assert error.message.startswith("--loop ")
    assert problem in error.message
    assert error.message.isprintable()


@pytest.mark.parametrize("trace_id", ["", "t-1", "é", "x" * MAX_TRACE_ID_CHARS, "with space"])
def test_trace_id_of_any_text_works(trace_id: str) -> None:
    assert validate_trace_id(trace_id) == trace_id


@pytest.mark.parametrize(
    "trace_id", ["a\r\nX-Evil: 1", "\0", "\x7f", "\ud800", "x" * (MAX_TRACE_ID_CHARS + 1)]
)
def test_trace_id_that_could_break_a_header_is_refused(trace_id: str) -> None:
    with pytest.raises(OpsError) as caught:
        validate_trace_id(trace_id, field="--trace-id")
    assert (caught.value.reason, caught.value.field) == ("invalid_trace_id", "--trace-id")


def test_new_trace_id_is_a_lower_case_uuid4() -> None:
    made = {new_trace_id() for _ in range(200)}
    assert len(made) == 200
    form = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    assert all(form.fullmatch(trace_id) for trace_id in made)


def test_new_boot_id_is_32_hexadecimal_digits() -> None:
    assert re.fullmatch("[0-9a-f]{32}", new_boot_id())
    assert new_boot_id() != new_boot_id()


def test_ids_are_made_without_importing_uuid() -> None:
    code = (
        "import sys; from spritemesh.ids import new_trace_id; new_trace_id(); sys.exit('uuid' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "'plain'"),
        ("é", "'é'"),
        ("a\nb", "'a\\nb'"),
        ("\x1b[0m", "'\\x1b[0m'"),
        ("\u202eevil", "'\\u202eevil'"),
        ("\ud800", "'\\ud800'"),
        ("x" * 100, "'" + "x" * 80 + "...'"),
    ],
)
def test_printable_is_harmless_on_a_terminal_and_short(text: str, shown: str) -> None:
    assert printable(text) == shown
