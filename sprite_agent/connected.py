"""Who connected (`sprite_agent.provenance`) as it is recorded, as it is answered, and as people read it."""

import os
from typing import NamedTuple

from sprite_agent.provenance import Provenance
from spritemesh.errors import one_line
from spritemesh.jsontext import JSON
from spritemesh.values import drop, nz
from superloop.ops.v1 import control_pb2 as pb

# A certificate may hold any number of names of any length; rows shall stay rows.
_MAX_NAMES = 8
_MAX_CHARS = 512


class _Named(NamedTuple):
    """A member of rows, and the word before it in a text."""

    member: str
    word: str


_TEXTS = {
    "address": _Named("address", ""),
    "token_id": _Named("tokenId", "token "),
    "key_id": _Named("keyId", "key "),
}


def local_user() -> Provenance:
    """The user of this process, who runs a command line: "uid 1000 (ada)"."""
    import pwd

    uid = os.getuid()
    try:
        return Provenance(address=f"uid {uid} ({pwd.getpwuid(uid).pw_name})")
    except KeyError:
        return Provenance(address=f"uid {uid}")


def connected_document(provenance: Provenance) -> dict[str, JSON]:
    """The members of a row; none where nothing is known."""
    members: dict[str, JSON] = {"edge": nz(provenance.edge)}
    for field, (member, _) in _TEXTS.items():
        members[member] = nz(one_line(getattr(provenance, field)[:_MAX_CHARS]))
    names = [one_line(name[:_MAX_CHARS]) for name in provenance.identities[:_MAX_NAMES]]
    return drop({**members, "identities": names or None})


def connected_text(provenance: Provenance) -> str:
    """As people read it: "grpc 127.0.0.1:4711, as spiffe://mesh/ops, token 0123456789ab"."""
    document = connected_document(provenance)
    words = [f"as {name}" for name in document.get("identities", [])]
    words += [f"{word}{document[member]}" for member, word in _TEXTS.values() if word and member in document]
    place = " ".join(filter(None, (document.get("edge"), document.get("address"))))
    return ", ".join([place, *words] if place else words)


def connected_message(provenance: Provenance) -> pb.ControlProvenance:
    """The message of an outcome."""
    return pb.ControlProvenance(**provenance._asdict())


def connected_of(outcome: pb.ControlOutcome) -> Provenance:
    """What an outcome tells; an empty edge where it tells nothing."""
    if not outcome.HasField("provenance"):
        return Provenance("")
    told = outcome.provenance
    return Provenance(told.edge, told.token_id, told.key_id, tuple(told.identities), told.address)
