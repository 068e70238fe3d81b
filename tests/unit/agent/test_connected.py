"""Who connected, as it is recorded, answered and read."""

import os
import pwd

import pytest

from sprite_agent.connected import (
    connected_document,
    connected_message,
    connected_of,
    connected_text,
    local_user,
)
from sprite_agent.provenance import Provenance
from superloop.ops.v1 import control_pb2 as pb

WHOLE = Provenance("grpc", "0123456789ab", "k1", ("spiffe://mesh/ops", "ops"), "127.0.0.1:4711")


def test_what_is_known_is_recorded_and_nothing_else() -> None:
    assert connected_document(WHOLE) == {
        "edge": "grpc",
        "address": "127.0.0.1:4711",
        "tokenId": "0123456789ab",
        "keyId": "k1",
        "identities": ["spiffe://mesh/ops", "ops"],
    }
    assert connected_document(Provenance("http")) == {"edge": "http"}
    assert connected_document(Provenance("")) == {}


def test_names_of_a_certificate_fill_no_row_and_end_no_line() -> None:
    names = tuple("\n" * 5000 for _ in range(5000))
    found = connected_document(WHOLE._replace(identities=names))["identities"]
    assert len(found) == 8
    assert sum(map(len, found)) < 50_000
    assert not any("\n" in name for name in found)


def test_an_outcome_carries_it_there_and_back() -> None:
    assert connected_of(pb.ControlOutcome(provenance=connected_message(WHOLE))) == WHOLE
    assert connected_of(pb.ControlOutcome()) == Provenance("")


@pytest.mark.parametrize(
    ("provenance", "text"),
    [
        (WHOLE, "grpc 127.0.0.1:4711, as spiffe://mesh/ops, as ops, token 0123456789ab, key k1"),
        (Provenance("http", address="unix"), "http unix"),
        (Provenance("", key_id="k1"), "key k1"),
        (Provenance(""), ""),
    ],
)
def test_people_read_it_in_one_line(provenance: Provenance, text: str) -> None:
    assert connected_text(provenance) == text


def test_a_command_line_is_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    name = pwd.getpwuid(os.getuid()).pw_name
    assert local_user() == Provenance("local", address=f"uid {os.getuid()} ({name})")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert local_user() == Provenance("local", address="uid 4000000000")
