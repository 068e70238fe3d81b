"""Signatures: files of keys, the bytes that are signed, and that the published vector holds."""

import base64
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from google.protobuf import descriptor, descriptor_pool
from hypothesis import given
from hypothesis import strategies as st

from spritemesh.errors import OpsError
from spritemesh.signer import KeyFile, Signer, signer_of
from spritemesh.signing import (
    SigningKey,
    http_loop_id,
    parse_keys,
    read_signature,
    sign,
    signed_bytes,
)
from superloop.ops.v1 import control_pb2, manager_pb2, sprite_pb2
from tests.harness.agents import ROOT
from tests.harness.signing import FIRST, SECOND, key_lines, write_keys

METHOD = "/superloop.ops.v1.SpriteService/GetSnapshot"


def fault_of(data: bytes | str) -> str:
    """The message about a file that cannot be used, without the file."""
    with pytest.raises(OpsError) as caught:
        parse_keys(data.encode() if isinstance(data, str) else data, "/keys", field="--signing-key-file")
    assert (caught.value.reason, caught.value.field) == ("signing_key_invalid", "--signing-key-file")
    assert caught.value.message.startswith("--signing-key-file /keys")
    return caught.value.message.removeprefix("--signing-key-file /keys")


# --- the file -------------------------------------------------------------------------------------------


def test_file_holds_one_or_two_keys_of_which_the_first_comes_first() -> None:
    assert parse_keys(key_lines(FIRST).encode(), "", field="") == (FIRST,)
    text = f"# ours\r\n\n  {key_lines(SECOND)}\t\n# theirs\n{key_lines(FIRST)}"
    assert parse_keys(text.encode(), "", field="") == (SECOND, FIRST)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("", ": holds no key"),
        ("# nothing\n\n", ": holds no key"),
        ("first\n", ", line 1: must be KEY_ID BASE64, found words: 1"),
        ("\nfirst two three\n", ", line 2: must be KEY_ID BASE64, found words: 3"),
        (f"a/b {'A' * 44}\n", ", line 1: a key's id has 1 to 64 characters"),
        (f"{'k' * 65} {'A' * 44}\n", ", line 1: a key's id has 1 to 64 characters"),
        (f"k\u00e9y {'A' * 44}\n", ", line 1: a key's id has 1 to 64 characters"),
        ("first AAA\n", ", line 1: the second word must be base64"),
        ("first A-A_AAAAAAAAAAAAAAAAAAAAAAAAAAAA\n", ", line 1: the second word must be base64"),
        (b"first \xff\xff\n", ", line 1: the second word must be base64"),
        ("first AAAA\n", ", line 1: a key has at least 16 bytes, found 3"),
        (key_lines(FIRST, FIRST), ", line 2: the id is that of a key above"),
        (key_lines(FIRST, SECOND, SigningKey("third", b"x" * 16)), ", line 3: there may be 2 keys"),
        ("#" * 5000, ": holds more than 4096 bytes"),
    ],
)
def test_fault_of_a_file_names_the_line_and_shows_nothing_of_it(data: bytes | str, told: str) -> None:
    message = fault_of(data)
    assert message.startswith(told)
    assert not re.search(r"AAA|\u00e9|a/b", message)


@given(st.binary(max_size=200))
def test_whatever_a_file_holds_is_keys_or_a_fault(data: bytes) -> None:
    with suppress(OpsError):
        assert 1 <= len(parse_keys(data, "/keys", field="--signing-key-file")) <= 2


def test_printed_key_shows_no_secret() -> None:
    assert repr(FIRST) == "SigningKey('first')"
    assert "secret" not in f"{(FIRST,)} {FIRST!s}"


# --- the bytes ------------------------------------------------------------------------------------------

_methods = st.text(st.characters(exclude_characters="\n"), max_size=8)
_parts = st.tuples(
    _methods,
    st.text(st.sampled_from("a\n0"), max_size=8) | st.text(max_size=8),
    st.integers(0, 10**15 - 1),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    st.binary(max_size=8),
)


@given(_parts, _parts)
def test_no_two_requests_have_the_same_bytes(
    one: tuple[str, str, int, str, bytes], other: tuple[str, str, int, str, bytes]
) -> None:
    assert (signed_bytes(*one) == signed_bytes(*other)) == (one == other)


@given(_parts)
def test_the_parts_can_be_read_back_from_the_bytes(parts: tuple[str, str, int, str, bytes]) -> None:
    lines = signed_bytes(*parts).decode("utf-8", "surrogatepass").split("\n")
    moment, nonce, _, end = lines[-4:]
    assert (lines[1], "\n".join(lines[2:-4]), int(moment), nonce, end) == (*parts[:4], "")


def test_method_that_could_pass_for_two_lines_is_not_signed() -> None:
    with pytest.raises(ValueError, match="newline"):
        signed_bytes("GET /\nalpha", "", 1, "00", b"")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1",
        "v2;k;1;{nonce};{mac}",
        "v1;;1;{nonce};{mac}",
        "v1;a b;1;{nonce};{mac}",
        "v1;k;01;{nonce};{mac}",
        "v1;k;-1;{nonce};{mac}",
        "v1;k;1.5;{nonce};{mac}",
        "v1;k;\u0661;{nonce};{mac}",
        "v1;k;1000000000000000;{nonce};{mac}",
        "v1;k;1;{nonce}0;{mac}",
        "v1;k;1;{nonce};{mac}\n",
        "v1;k;1;{nonce};{mac};",
        "v1;k;1;{nonce};{short}",
        "v1;k;1;{upper};{mac}",
    ],
)
def test_header_of_another_form_is_none(text: str) -> None:
    made = text.format(nonce="0" * 32, mac="a" * 64, short="a" * 63, upper="A" * 32)
    assert read_signature(made) is None


def test_header_is_read_as_it_was_written() -> None:
    made = sign(FIRST, method=METHOD, loop_id="a", body=b"", timestamp=0, nonce="0" * 32)
    assert read_signature(made.text) == made


def vector() -> dict[str, str]:
    """The published test vector: the block of the documents that begins with a key file."""
    for page in sorted((ROOT / "docs").glob("*.md")):
        found = re.search(r"```text\n(key file .*?)```", page.read_text(), re.DOTALL)
        if found:
            return {line[:12].strip(): line[12:] for line in found[1].splitlines()}
    raise AssertionError("no document has the vector")


def test_published_vector_holds() -> None:
    told = vector()
    (key,) = parse_keys(told["key file"].encode(), "", field="")
    body = bytes.fromhex(told["request"])
    assert sprite_pb2.GetSnapshotRequest.FromString(body).loop_id == told["loop id"]
    parts = told["method"], told["loop id"], int(told["time"]), told["nonce"]
    assert signed_bytes(*parts, body) == told["signed"].replace("\\n", "\n").encode()
    assert told["sha-256"] in told["signed"]
    method, loop_id, timestamp, nonce = parts
    made = sign(key, method=method, loop_id=loop_id, body=body, timestamp=timestamp, nonce=nonce)
    assert made.text == told["signature"]


@pytest.mark.parametrize(
    ("path", "query", "body", "loop_id"),
    [
        ("/ops/snapshot", "loopId=alpha", b"", "alpha"),
        ("/ops/snapshot", "x=1&loopId=&loopId=a%20b&loopId=c", b'{"loopId":"d"}', "a b"),
        ("/ops/snapshot", "", b"", ""),
        ("/ops/snapshot", "loopId=%ff", b"", ""),
        ("/ops/snapshot", "&".join(["loopId=a"] * 101), b"", ""),
        ("/ops/control", "loopId=a", b'{"loopId":"alpha"}', "alpha"),
        ("/ops/control", "loopId=a", b'{"loopId":7}', ""),
        ("/ops/control", "", b'["loopId"]', ""),
        ("/ops/control", "", b"{", ""),
        ("/ops/control", "", b"\xff", ""),
    ],
)
def test_loop_id_over_http_is_of_the_query_or_of_a_control_body(
    path: str, query: str, body: bytes, loop_id: str
) -> None:
    assert http_loop_id(path, query, body) == loop_id


# --- one serialization ----------------------------------------------------------------------------------


def messages_of(message: descriptor.Descriptor, seen: set[str]) -> Iterator[descriptor.Descriptor]:
    """A message and all that it holds."""
    if message.full_name not in seen:
        seen.add(message.full_name)
        yield message
        for field in message.fields:
            if field.message_type is not None:
                yield from messages_of(field.message_type, seen)


def test_no_request_of_the_contract_holds_a_map() -> None:
    """What is signed is what was sent; a client that serializes twice gets the same only without maps."""
    pool = descriptor_pool.Default()
    seen: set[str] = set()
    for module in (sprite_pb2, control_pb2, manager_pb2):
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in pool.FindServiceByName(service.full_name).methods:
                for message in messages_of(method.input_type, seen):
                    assert not message.GetOptions().map_entry, message.full_name


# --- the file changes -----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_keys(tmp_path / "keys", FIRST)


def test_file_is_read_again_when_it_changes(path: Path) -> None:
    keys = KeyFile(str(path))
    assert keys.current() == (FIRST,)
    for wanted in ((FIRST, SECOND), (SECOND, FIRST), (SECOND,)):
        write_keys(path, *wanted)
        assert keys.current() == wanted


def test_second_change_within_a_tick_of_the_clock_is_seen(path: Path) -> None:
    keys = KeyFile(str(path))
    twin = SigningKey("third", b"y" * len(FIRST.secret))
    path.write_text(key_lines(twin))
    assert keys.current() == (twin,)
    path.write_text(key_lines(twin._replace(secret=b"z" * len(twin.secret))))
    assert keys.current()[0].secret == b"z" * len(twin.secret)


def test_file_that_cannot_be_used_any_more_is_told_once_and_the_keys_stay(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = KeyFile(str(path))
    path.write_text("nonsense\n")
    for _ in range(3):
        assert keys.current() == (FIRST,)
    path.unlink()
    for _ in range(3):
        assert keys.current() == (FIRST,)
    told = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2
    assert all(text.startswith("signing_key_invalid: --signing-key-file ") for text in told)
    assert "No such file" in told[1]
    write_keys(path, SECOND)
    assert keys.current() == (SECOND,)


@pytest.mark.parametrize("name", ["missing", "."])
def test_file_that_cannot_be_read_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    with pytest.raises(OpsError) as caught:
        KeyFile(str(tmp_path / name))
    assert (caught.value.reason, caught.value.field) == ("signing_key_invalid", "--signing-key-file")
    assert str(tmp_path / name).removesuffix("/.") in caught.value.message


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_file_that_everybody_may_read_is_warned_of(
    path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    path.chmod(mode)
    KeyFile(str(path))
    assert ("every user of this host may read it" in caplog.text) == warned


def test_signer_signs_with_the_first_key_and_never_twice_with_one_nonce(path: Path) -> None:
    write_keys(path, SECOND, FIRST)
    signer = Signer(KeyFile(str(path)), clock=lambda: 1767225600.1239)
    headers = [signer.header(METHOD, "alpha", b"x") for _ in range(3)]
    nonces = [header.split(";")[3] for header in headers]
    assert len(set(nonces)) == 3
    wanted = [
        sign(SECOND, method=METHOD, loop_id="alpha", body=b"x", timestamp=1767225600123, nonce=nonce)
        for nonce in nonces
    ]
    assert headers == [signature.text for signature in wanted]


def test_sessions_with_one_file_share_what_was_read(path: Path) -> None:
    assert signer_of(str(path)) is signer_of(str(path))


def test_secret_may_be_any_bytes(tmp_path: Path) -> None:
    secret = os.urandom(1000)
    text = f"k {base64.b64encode(secret).decode()}"
    assert parse_keys(text.encode(), "", field="") == (SigningKey("k", secret),)
