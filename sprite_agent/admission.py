"""Who is let in, and for what: the same for each edge, so that gRPC and HTTP cannot differ.

Whatever a caller asks for, it is first known who asks. A caller without the right learns nothing else:
neither whether a loop or a method exists, nor whether its request could be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from sprite_agent.limits import Limits
from sprite_agent.provenance import Provenance, host_of
from sprite_agent.rates import Failures, Rates, network_of
from spritemesh.errors import OpsError

if TYPE_CHECKING:
    from sprite_agent.security import TokenCheck
    from sprite_agent.signatures import Signatures

# What HTTP/2 counts for each field of a header beside its bytes (RFC 9113, 6.5.2).
FIELD_BYTES = 32
# Whoever brings nothing does not guess; nor does who proved a key, on a clock that is wrong.
_NO_GUESS = frozenset({"token_missing", "signature_missing", "signature_expired"})


class Right(StrEnum):
    """What a call needs. PUBLIC: nothing, as health for probes."""

    PUBLIC = "public"
    READ = "read"
    CONTROL = "control"


class Arrival(NamedTuple):
    """A call as it reached an edge.

    method: as it is signed: gRPC's path, or HTTP's method and target. headers: lower-case names. address: the
    peer's, host:port or "unix". identities: names in the client's certificate, none without.
    """

    edge: str
    method: str
    right: Right
    headers: Sequence[tuple[str, str | bytes]]
    address: str
    identities: tuple[str, ...] = ()


class AllowList(NamedTuple):
    """Names of certificates that may do something; None: whoever is let in may. Who may control may read."""

    control: frozenset[str] | None = None
    read: frozenset[str] | None = None

    def allows(self, right: Right, identities: Sequence[str]) -> bool:
        """Whether one of the names has the right."""
        if right is Right.CONTROL:
            return self.control is None or not self.control.isdisjoint(identities)
        if self.read is None:
            return True
        return not (self.read | (self.control or frozenset())).isdisjoint(identities)


class Admission:
    """Decides on calls to one server. Of one event loop.

    signatures None: nothing needs to be signed. proves_peers: whether all peers have certificates.
    """

    def __init__(
        self,
        tokens: TokenCheck,
        limits: Limits | None = None,
        *,
        signatures: Signatures | None = None,
        allowed: AllowList | None = None,
        proves_peers: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self._tokens = tokens
        self._signatures = signatures
        self._allowed = allowed or AllowList()
        self._proves_peers = proves_peers
        self._failures = Failures(self.limits.failures_per_minute)
        self._controls = Rates(self.limits.control_per_minute)

    @property
    def is_open(self) -> bool:
        """Whether whoever reaches the address is let in."""
        return not (self.wants_secret or self._proves_peers)

    @property
    def wants_secret(self) -> bool:
        """Whether each call needs what no web page can know. A certificate is none: browsers show it by
        themselves."""
        return self._signatures is not None or not self._tokens.is_open

    def enter(self, arrival: Arrival) -> Provenance:
        """Who connected. Raises OpsError for whoever may not come in; nothing of the request is looked at."""
        if arrival.right is not Right.PUBLIC:
            self._failures.check(_origin(arrival))
        self._check_size(arrival)
        provenance = Provenance(
            edge=arrival.edge,
            token_id=self._tokens.id,
            identities=arrival.identities,
            address=arrival.address,
        )
        if arrival.right is Right.PUBLIC:
            return provenance._replace(token_id="")
        refusal = self._tokens.refusal(arrival.headers)
        if refusal is not None:
            self._note(arrival, refusal)
            raise refusal
        if not self._allowed.allows(arrival.right, arrival.identities):
            raise OpsError("identity_not_allowed", "the caller's certificate does not give it this right")
        return provenance

    def expect_body(self, arrival: Arrival) -> bool:
        """Whether `verify` needs the body of a call that entered. Raises OpsError `signature_missing` of one
        that is not signed: of that nothing needs to be read."""
        if self._signatures is not None:
            self._signatures.check_present(arrival.headers)
        return self._signatures is not None

    def verify(self, arrival: Arrival, provenance: Provenance, *, loop_id: str, body: bytes) -> Provenance:
        """Who signed, where signatures are needed, and whether it does not come too often.

        loop_id: of the request, "" without one. body: the request's bytes. Raises OpsError of a signature,
        and `control_rate_limited`.
        """
        if self._signatures is not None and arrival.right is not Right.PUBLIC:
            try:
                key_id = self._signatures.verify(
                    arrival.headers, method=arrival.method, loop_id=loop_id, body=body
                )
            except OpsError as refusal:
                self._note(arrival, refusal)
                raise
            provenance = provenance._replace(key_id=key_id)
        if arrival.right is Right.CONTROL:
            self._controls.take(provenance.identity)
        return provenance

    def _note(self, arrival: Arrival, refusal: OpsError) -> None:
        """Count a failure."""
        if refusal.reason not in _NO_GUESS:
            self._failures.note(_origin(arrival))

    def _check_size(self, arrival: Arrival) -> None:
        most = self.limits.metadata_bytes
        if headers_bytes(arrival.headers) > most:
            raise OpsError("metadata_too_large", f"the metadata of the call take more than {most} bytes")


def headers_bytes(headers: Sequence[tuple[str, str | bytes]]) -> int:
    """How large headers are: names, values, and `FIELD_BYTES` for each."""
    return sum(len(name) + len(value) + FIELD_BYTES for name, value in headers)


def _origin(arrival: Arrival) -> str:
    """What failures are counted by: a proved name, else the network of one host."""
    return arrival.identities[0] if arrival.identities else network_of(host_of(arrival.address))
