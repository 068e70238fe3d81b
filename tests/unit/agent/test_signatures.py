"""Who signed a request: what is taken, what is refused, and that nothing is taken twice."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprite_agent.admission import Admission, Arrival, Right
from sprite_agent.limits import Limits
from sprite_agent.security import TokenCheck
from sprite_agent.signatures import Nonces, Signatures
from spritemesh.errors import OpsError
from spritemesh.signing import Signature, SigningKey
from tests.harness.signing import FIRST, SECOND, signature, write_keys

START = 1_767_225_600.0
METHOD, LOOP, BODY = "GET /ops/snapshot?loopId=alpha", "alpha", b"body"
REQUEST = {"method": METHOD, "loop_id": LOOP, "body": BODY}


class Server:
    """Signatures on a clock that the test sets: `now`, epoch seconds."""

    def __init__(self, path: Path, *, max_nonces: int = 1000) -> None:
        self.now = START
        self.path = path
        self.signatures = Signatures(str(path), clock=lambda: self.now, max_nonces=max_nonces)
        self.now = START + 1000

    def verify(self, *headers: tuple[str, str | bytes], **parts: Any) -> str:
        return self.signatures.verify(headers, **(REQUEST | parts))

    def refusal(self, *headers: tuple[str, str | bytes], **parts: Any) -> OpsError:
        with pytest.raises(OpsError) as caught:
            self.verify(*headers, **parts)
        return caught.value

    def signed(self, *, ago: float = 0, **settings: Any) -> tuple[str, str]:
        """A signed request of some seconds ago."""
        return signature(METHOD, LOOP, BODY, at=self.now - ago, **settings)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(write_keys(tmp_path / "keys", FIRST))


def test_signed_request_is_taken_and_its_key_named(server: Server) -> None:
    assert server.verify(("x-other", "1"), server.signed()) == "first"
    name, text = server.signed()
    assert server.verify((name, f" {text} ".encode())) == "first"


@pytest.mark.parametrize(
    "changed",
    [{"method": "GET /ops/snapshot?loopId=beta"}, {"loop_id": "beta"}, {"body": b"bodz"}, {"body": b""}],
)
def test_signature_of_another_request_is_wrong(server: Server, changed: dict[str, Any]) -> None:
    assert server.refusal(server.signed(), **changed).reason == "signature_wrong"


@pytest.mark.parametrize("part", range(5))
def test_every_part_of_the_header_counts(server: Server, part: int) -> None:
    name, text = server.signed()
    parts = text.split(";")
    parts[part] = parts[part][:-1] + ("1" if parts[part][-1] == "2" else "2")
    assert server.refusal((name, ";".join(parts))).reason == "signature_wrong"


def test_unknown_key_and_wrong_signature_are_told_alike(server: Server) -> None:
    unknown = server.refusal(server.signed(key=SECOND))
    forged = server.refusal(server.signed(key=FIRST._replace(secret=SECOND.secret)))
    late = server.refusal(server.signed(key=SECOND, ago=3600))
    assert unknown.reason == forged.reason == late.reason == "signature_wrong"
    assert unknown.message == forged.message == late.message
    assert "first" not in unknown.message


@pytest.mark.parametrize("text", ["", "v1", "Bearer x", "v1;first;1;0;0", "\u00ff"])
def test_header_of_another_form_is_wrong(server: Server, text: str) -> None:
    assert server.refusal(("x-ops-signature", text)).reason == "signature_wrong"


def test_without_a_signature_it_is_missing_and_two_are_wrong(server: Server) -> None:
    assert server.refusal().reason == "signature_missing"
    assert server.refusal(("authorization", "x")).reason == "signature_missing"
    assert server.refusal(server.signed(), server.signed()).reason == "signature_wrong"


def test_method_with_a_newline_is_nobodys(server: Server) -> None:
    assert server.refusal(server.signed(), method="GET /\nalpha").reason == "signature_wrong"


@pytest.mark.parametrize("ago", [60, -60, 59.999, 0])
def test_clocks_may_be_a_minute_apart(server: Server, ago: float) -> None:
    assert server.verify(server.signed(ago=ago)) == "first"


@pytest.mark.parametrize(
    ("ago", "told"),
    [
        (60.001, "60.0 s behind"),
        (-60.001, "60.0 s ahead of"),
        (3600, "3600.0 s behind"),
        (-90, "90.0 s ahead of"),
    ],
)
def test_beyond_that_it_is_told_by_how_much_and_which_way(server: Server, ago: float, told: str) -> None:
    refusal = server.refusal(server.signed(ago=ago))
    assert (refusal.reason, told in refusal.message, refusal.retry_after) == ("signature_expired", True, None)


def test_signature_is_taken_once(server: Server) -> None:
    header = server.signed(ago=30)
    server.verify(header)
    assert server.refusal(header).reason == "nonce_replayed"
    server.now += 29
    assert server.refusal(header).reason == "nonce_replayed"
    server.now += 2
    assert server.refusal(header).reason == "signature_expired"


def test_nonce_is_used_up_for_every_key(server: Server) -> None:
    nonce = "ab" * 16
    name, text = server.signed(nonce=nonce)
    assert server.verify((name, text)) == "first"
    write_keys(server.path, SECOND, FIRST._replace(id="renamed"))
    # The id is not signed: this is the same request under the new name of its key.
    assert server.refusal((name, text.replace("first", "renamed"))).reason == "nonce_replayed"
    assert server.refusal(server.signed(nonce=nonce, key=SECOND)).reason == "nonce_replayed"
    assert server.verify(server.signed(key=SECOND)) == "second"


def test_refused_request_uses_up_no_nonce(server: Server) -> None:
    header = server.signed()
    server.refusal(header, body=b"other")
    assert server.verify(header) == "first"


def test_what_was_signed_before_the_start_is_refused_until_clocks_have_passed_it(tmp_path: Path) -> None:
    server = Server(write_keys(tmp_path / "keys", FIRST))
    server.now = START + 5
    refusal = server.refusal(server.signed(ago=12))
    assert refusal.reason == "signature_expired"
    assert refusal.retry_after == pytest.approx(7.001)
    server.now += 7.001
    assert server.verify(server.signed(ago=12)) == "first"


def test_memory_is_bounded_and_what_may_be_forgotten_is_refused(tmp_path: Path) -> None:
    server = Server(write_keys(tmp_path / "keys", FIRST), max_nonces=3)
    headers = [server.signed(ago=ago) for ago in (40, 50, 30, 20, 10)]
    for header in headers:
        server.verify(header)
    reasons = [server.refusal(header).reason for header in headers]
    assert reasons == ["signature_expired", "signature_expired", *["nonce_replayed"] * 3]
    assert server.refusal(server.signed(ago=40)).reason == "signature_expired"
    assert server.verify(server.signed(ago=39.999)) == "first"


def test_clock_that_is_set_back_lets_nothing_pass_twice(server: Server) -> None:
    header = server.signed()
    server.verify(header)
    server.now += 100
    server.verify(server.signed())  # what is older than the window goes
    server.now -= 100
    assert server.refusal(header).reason == "signature_expired"


_moments = st.lists(st.tuples(st.integers(-90_000, 90_000), st.integers(0, 5)), max_size=60)


@given(_moments, st.integers(1, 4))
def test_whatever_clocks_do_no_signature_is_taken_twice(moments: list[tuple[int, int]], most: int) -> None:
    nonces, now, taken = Nonces(0, most), 1_000_000, set[tuple[int, int]]()
    for step, number in moments:
        now += step // 3
        nonces.forget_before(now - 60_000)
        one = Signature("k", now + step, f"{number:032x}", "")
        if one.timestamp > nonces.floor and nonces.take(one):
            assert (one.timestamp, number) not in taken
            taken.add((one.timestamp, number))
        assert len(nonces) <= most


def test_keys_are_exchanged_while_requests_come(server: Server) -> None:
    def takes(key: SigningKey) -> bool:
        header = server.signed(key=key)
        with suppress(OpsError):
            return server.verify(header) == key.id
        return False

    seen = []
    for keys in ((FIRST,), (FIRST, SECOND), (SECOND, FIRST), (SECOND,)):
        write_keys(server.path, *keys)
        seen.append((takes(FIRST), takes(SECOND)))
    assert seen == [(True, False), (True, True), (True, True), (False, True)]


def test_failed_signatures_count_against_their_address(server: Server) -> None:
    admission = Admission(TokenCheck(""), Limits(failures_per_minute=2), signatures=server.signatures)
    assert not admission.is_open

    def call(*headers: tuple[str, str]) -> str:
        """The reason of a refusal, "" without one."""
        arrival = Arrival("http", METHOD, Right.READ, headers, "192.0.2.1:4711")
        try:
            provenance = admission.enter(arrival)
            assert admission.verify(arrival, provenance, loop_id=LOOP, body=BODY).key_id == "first"
        except OpsError as error:
            return error.reason
        return ""

    reasons = [call(), call(server.signed()), call(server.signed(key=SECOND)), call(server.signed(ago=90))]
    assert reasons == ["signature_missing", "", "signature_wrong", "signature_expired"]
    # Whoever brings nothing, or proved a key on a clock that is wrong, did not guess.
    assert [call(server.signed(key=SECOND)), call(server.signed())] == [
        "signature_wrong",
        "too_many_failures",
    ]
