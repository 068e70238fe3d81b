"""The hash chain of an audit: what it seals, and how it goes on after whatever befell it."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from manager.audit_check import Checked, Note, check
from spritemesh import chaining
from spritemesh.auditchain import Head, read_head, read_row, sealed
from spritemesh.chaining import ChainFiles
from tests.harness.agents import ROOT
from tests.harness.disk import largest_file

ABOUT = {"at": "2026-01-02T03:04:05.678Z", "idempotencyKey": "key-1", "connected": {"edge": "grpc"}}


@pytest.fixture
def paths(tmp_path: Path) -> ChainFiles:
    return ChainFiles(*(str(tmp_path / name) for name in ("audit", "chain", "head")))


def write(paths: ChainFiles, *numbers: int) -> None:
    for number in numbers:
        chaining.append(paths, b'{"n":%d}\n' % number, ABOUT)


def rows(paths: ChainFiles) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(paths.chain).read_text().splitlines()]


def whole(paths: ChainFiles, *notes: Note) -> Checked:
    found = check(paths)
    assert found.fault is None
    assert found.notes == list(notes)
    return found


def append_raw(path: str, data: bytes) -> None:
    with open(path, "ab") as file:
        file.write(data)


def test_rows_are_sealed_as_the_documentation_says() -> None:
    """The worked example of docs/security.md; any tool that knows SHA-256 comes to the same."""
    line = b'{"n":1}\n'
    digest = "cedf74272c9fc8db5448283a93277e7e7eb7534b71df3bd8ab35fd9b1b73404c"
    members = {
        "line": 1,
        "offset": 0,
        "bytes": 8,
        "sha256": hashlib.sha256(line).hexdigest(),
        "origin": "recorded",
        "at": "2026-01-02T03:04:05.678Z",
        "requestedBy": "ada",
        "traceId": "trace-1",
        "idempotencyKey": "key-1",
        "connected": {"edge": "grpc", "address": "127.0.0.1:4711", "tokenId": "0123456789ab"},
        "previous": "0" * 64,
    }
    row, chain = sealed(members)
    covered, _, end = row.partition(b',"chain":')
    assert hashlib.sha256(b"spritemesh-audit-chain\n" + covered).hexdigest() == chain
    assert end == f'"{chain}"}}\n'.encode()
    assert members["sha256"] == digest
    assert chain == "752441318a9664967a05850ccc75a6fcf5d68104ac3396c51baa462c3866903d"
    read = read_row(row)
    assert read is not None
    assert (read.line, read.offset, read.size, read.chain) == (1, 0, 8, chain)
    assert any(row.decode() in page.read_text() for page in (ROOT / "docs").glob("*.md"))


def test_a_row_of_which_any_byte_changed_is_none() -> None:
    row, _ = sealed(
        {"line": 1, "offset": 0, "bytes": 8, "sha256": "0", "origin": "recorded", "previous": "0"}
    )
    assert read_row(row) is not None
    for place in range(len(row)):
        assert read_row(row[:place] + bytes([row[place] ^ 1]) + row[place + 1 :]) is None
        assert read_row(row[:place]) is None


@pytest.mark.parametrize(
    "members",
    [
        {"line": "1"},
        {"line": -1},
        {"bytes": 1.5},
        {"offset": True},
        {"origin": "other"},
        {"sha256": 7},
        {"segment": []},
    ],
)
def test_a_sealed_row_with_members_of_other_kinds_is_none(members: dict[str, object]) -> None:
    usual = {"line": 1, "offset": 0, "bytes": 8, "sha256": "0", "origin": "recorded", "previous": "0"}
    assert read_row(sealed(usual | members)[0]) is None


def test_a_head_has_one_spelling() -> None:
    head = Head(12, "ab" * 32)
    assert read_head(head.text()) == read_head(f"{head.text()}\n".encode()) == head
    for other in (
        "",
        "12",
        f"012:{'ab' * 32}",
        f"12:{'AB' * 32}",
        f"12:{'ab' * 31}",
        f"-1:{'ab' * 32}",
        "\xff:",
    ):
        assert read_head(other) is None


def test_each_line_gets_a_row_that_follows_the_one_before(paths: ChainFiles) -> None:
    write(paths, 1, 2, 3)
    found = rows(paths)
    assert [row["line"] for row in found] == [1, 2, 3]
    assert [row["offset"] for row in found] == [0, 8, 16]
    assert [row["previous"] for row in found] == ["0" * 64, found[0]["chain"], found[1]["chain"]]
    assert found[2]["sha256"] == hashlib.sha256(b'{"n":3}\n').hexdigest()
    assert {name: found[2][name] for name in ABOUT} == ABOUT
    assert Path(paths.audit).read_bytes() == b'{"n":1}\n{"n":2}\n{"n":3}\n'
    assert Path(paths.head).read_text() == f"3:{found[2]['chain']}\n"
    assert whole(paths).head == Head(3, found[2]["chain"])
    assert {os.stat(path).st_mode & 0o777 for path in paths} == {0o600}


@pytest.mark.parametrize(
    ("mode", "expected"), [(0o644, 0o600), (0o664, 0o660), (0o666, 0o666), (0o620, 0o660)]
)
def test_whoever_may_write_the_audit_may_write_its_chain(paths: ChainFiles, mode: int, expected: int) -> None:
    Path(paths.audit).touch()
    Path(paths.audit).chmod(mode)
    write(paths, 1)
    assert [os.stat(path).st_mode & 0o777 for path in paths] == [mode, expected, expected]
    Path(paths.chain).chmod(0o640)
    write(paths, 2)
    assert os.stat(paths.chain).st_mode & 0o777 == 0o640


def test_lines_from_before_the_chain_get_rows_that_say_so(paths: ChainFiles) -> None:
    Path(paths.audit).write_bytes(b"".join(b"old %d\n" % number for number in range(3000)))
    assert check(paths).notes == [Note("without_row", 3000, 1, 3000)]
    write(paths, 1)
    assert whole(paths, Note("before_chain", 3000, 1, 3000)).chained == 3001


def test_lines_of_a_writer_without_a_chain_are_told_and_break_nothing(paths: ChainFiles) -> None:
    write(paths, 1)
    append_raw(paths.audit, b"by v1\n\nby v1, torn")
    whole(paths, Note("without_row", 3, 2, 4))
    write(paths, 5)
    assert whole(paths, Note("unchained", 3, 2, 4)).chained == 5
    assert "connected" not in rows(paths)[1]


def test_a_line_that_lost_its_writer_gets_its_row_with_who_connected(paths: ChainFiles) -> None:
    write(paths, 1)
    append_raw(paths.audit, b'by v1\n{"n":3}\n')
    chaining.complete(paths, b'{"n":3}\n', ABOUT)
    whole(paths, Note("unchained", 1, 2, 2))
    assert rows(paths)[2]["connected"] == {"edge": "grpc"}
    before = Path(paths.chain).read_bytes()
    chaining.complete(paths, b'{"n":3}\n', ABOUT)
    append_raw(paths.audit, b"torn")
    chaining.complete(paths, b"torn", ABOUT)
    assert Path(paths.chain).read_bytes() == before


def test_a_line_is_on_disk_before_its_row_whoever_wrote_it(
    paths: ChainFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut there may be a line without a row, and never a row without its line."""
    names: dict[int, str] = {}
    synced: list[str] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        fsync(handle)
        synced.append(names[os.fstat(handle).st_ino])

    write(paths, *range(8))
    names.update({os.stat(path).st_ino: Path(path).name for path in paths})
    monkeypatch.setattr(os, "fsync", note)
    append_raw(paths.audit, b'{"n":9}\n')
    chaining.complete(paths, b'{"n":9}\n', ABOUT)
    assert synced == ["audit", "chain"]
    # A head of another length, too: without its bytes it would be none.
    write(paths, 10)
    assert synced[2:] == ["audit", "chain", "head"]


def test_a_head_that_lags_is_made_up_for(paths: ChainFiles) -> None:
    """Who is killed before the head is put down leaves the one before."""
    write(paths, 1)
    before = Path(paths.head).read_bytes()
    write(paths, 2)
    Path(paths.head).write_bytes(before)
    whole(paths)
    write(paths, 3)
    whole(paths)


def test_a_row_that_a_power_cut_tore_is_told_and_breaks_nothing(paths: ChainFiles) -> None:
    write(paths, 1)
    append_raw(paths.audit, b'{"n":2}\n')
    append_raw(paths.chain, b'{"line":2,"off')
    assert check(paths).notes == [Note("torn_row", 1, 2, 2), Note("without_row", 1, 2, 2)]
    write(paths, 3)
    whole(paths, Note("torn_row", 1, 2, 2), Note("unchained", 1, 2, 2))
    lines = Path(paths.chain).read_bytes().splitlines(keepends=True)
    # It is sealed like the rest.
    for changed in ([lines[0], b"other\n", *lines[2:]], [lines[0], *lines[2:]]):
        Path(paths.chain).write_bytes(b"".join(changed))
        assert check(paths).fault is not None


def truncate_chain(paths: ChainFiles) -> None:
    os.truncate(paths.chain, 0)


def cut_chain(paths: ChainFiles) -> None:
    os.truncate(paths.chain, os.path.getsize(paths.chain) - 2)


def garble_chain(paths: ChainFiles) -> None:
    append_raw(paths.chain, b"garbage\n")


def remove_head(paths: ChainFiles) -> None:
    os.unlink(paths.head)


def truncate_audit(paths: ChainFiles) -> None:
    os.truncate(paths.audit, 8)


def replace_audit(paths: ChainFiles) -> None:
    Path(paths.audit).write_bytes(b"other\n" * 100)


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (truncate_chain, 1),
        (cut_chain, 3),
        (garble_chain, 4),
        (remove_head, 1),
        (truncate_audit, 2),
        (replace_audit, 1),
    ],
)
def test_damage_stops_no_control_and_is_told_ever_after(paths: ChainFiles, damage: Any, line: int) -> None:
    write(paths, 1, 2, 3)
    damage(paths)
    for number in (4, 5, 6):
        fault = check(paths).fault
        # A removed head is made anew; from then on the row tells that was written then.
        assert fault is not None
        assert fault.line == (line if number == 4 or damage is not remove_head else 4)
        write(paths, number)
    told = [b'"segment":' in line for line in Path(paths.chain).read_bytes().splitlines()[-3:]]
    assert told == [True, False, False]


def test_what_cannot_be_chained_is_an_error_that_names_the_file(paths: ChainFiles) -> None:
    write(paths, 1)
    size = os.path.getsize(paths.chain)
    with largest_file(size + 20), pytest.raises(OSError, match=r".+") as caught:
        write(paths, 2)
    assert caught.value.filename == paths.chain
    assert os.path.getsize(paths.chain) == size
    write(paths, 3)
    whole(paths, Note("unchained", 1, 2, 2))


def test_one_row_costs_the_same_however_long_the_files_are(
    paths: ChainFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(paths.audit).write_bytes(b"old\n" * 20_000)
    write(paths, 1)
    read: list[int] = []
    pread = os.pread

    def count(handle: int, size: int, offset: int) -> bytes:
        data = pread(handle, size, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", count)
    write(paths, 2)
    assert os.path.getsize(paths.chain) > 4_000_000
    assert sum(read) < 100_000
