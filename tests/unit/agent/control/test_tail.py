"""The end of output: which lines are kept, and how large it may become."""

import pytest

from sprite_agent.control.tail import TAIL_BYTES, TAIL_LINES, Kept, Tail


def kept(*pieces: bytes) -> Kept:
    tail = Tail()
    for piece in pieces:
        tail.add(piece)
    return tail.kept()


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (b"", ""),
        (b"\n\n", ""),
        (b"no newline", "no newline"),
        (b"one\ntwo\n", "one\ntwo"),
        (b"dos\r\nlines\r\n\r\n", "dos\nlines"),
        (b"a\rb\n", "a\rb"),
        (b"\n\nafter blank lines\n\n", "\n\nafter blank lines"),
        ("María\n".encode(), "María"),
        (b"\xff\xfe\n", "\ufffd\ufffd"),
        (b"a\0b\x1b[1m\n\0", "ab\x1b[1m"),
    ],
)
def test_output_is_kept_without_what_ends_lines(written: bytes, text: str) -> None:
    assert kept(written) == Kept(text, truncated=False)


def test_character_that_comes_in_two_pieces_is_one() -> None:
    assert kept(b"\xc3", b"\xa9").text == "é"


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_last_lines_are_kept(end: bytes) -> None:
    lines = [b"line %d" % number for number in range(TAIL_LINES + 1)]
    text, truncated = kept(b"\n".join(lines) + end)
    assert text.splitlines() == [line.decode() for line in lines[1:]]
    assert truncated
    assert not kept(b"\n".join(lines[1:]) + end).truncated


def test_long_line_keeps_its_end() -> None:
    text, truncated = kept(b"begin" + b"x" * TAIL_BYTES, b"end")
    assert (len(text), text[:5], text[-3:], truncated) == (TAIL_BYTES, "xxxxx", "end", True)


def test_bytes_that_grow_as_text_do_not_grow_beyond_the_bound() -> None:
    text, truncated = kept(b"\xff" * TAIL_BYTES)
    assert set(text) == {"\ufffd"}
    assert TAIL_BYTES - 3 < len(text.encode()) <= TAIL_BYTES
    assert truncated
