"""The registry of a fleet: which loops there are, and the way to each (contract K, end; L19).

Closed where it matters: a member with a misspelled name would silently be without effect, so an entry takes
no member that has no meaning, except in `metadata` and `sprite`, which are its owner's. At the top level v1
fleets keep more than loops (policies, notes), of which nothing is looked at here.

The registry holds no secrets, only names of variables and files that do. What an address must look like is
a matter of who opens it: see `manager.fleet.registry`.
"""

import re
from typing import NamedTuple

from spritemesh.endpoints import Trust
from spritemesh.errors import OpsError, kind_of
from spritemesh.ids import has_control, printable, validate_loop_id
from spritemesh.jsontext import JSON
from spritemesh.values import whole

SCHEMA_VERSION = "v1"
DEFAULT_FLEET_ID = "default"
# Beside the loops' directories stands the fleet's own, which has this name.
FLEET_DIRECTORY = "fleet"

LOCAL = "local"
SPRITE_SERVICE = "sprite_service"
_TRANSPORTS = (LOCAL, SPRITE_SERVICE)

_ENTRY_MEMBERS = ("loopId", "enabled", "transport", "sprite", "service", "metadata")
_SERVICE_MEMBERS = ("baseUrl", "tokenEnv", "retryAttempts", "retryBackoffSeconds", "signingKeyFile", "tls")
_TLS_MEMBERS = ("ca", "cert", "key", "serverName")
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*\Z"

MAX_RETRY_ATTEMPTS = 1000
MAX_RETRY_BACKOFF_SECONDS = 3600


class Entry(NamedTuple):
    """One loop of a fleet.

    transport: "local" or "sprite_service". base_url: of its service, "" for a local one. token_env: name of
    the variable that holds the token, "" when the entry names none. sprite_id: "" when it says none.
    signing_key_file: absolute path, "" when requests are not signed. trust: with paths as they are written;
    None: the entry says nothing of TLS.
    """

    loop_id: str
    enabled: bool = True
    transport: str = LOCAL
    base_url: str = ""
    token_env: str = ""
    sprite_id: str = ""
    retry_attempts: int = 3
    retry_backoff_seconds: float = 1.0
    signing_key_file: str = ""
    trust: Trust | None = None

    @property
    def shown(self) -> str:
        """The entry as messages name it."""
        return f"loop {printable(self.loop_id)}"


class Registry(NamedTuple):
    """A checked registry. loops: in its order, each id once; never empty."""

    fleet_id: str
    loops: tuple[Entry, ...]


def parse_registry(document: JSON) -> Registry:
    """The registry that a JSON document describes. An optional member that is null counts as absent.

    Raises OpsError `registry_invalid` for the first fault: it names the entry, the member and the kind of
    what was found there.
    """
    top = _Object("", document)
    version = top.text("schemaVersion", needed=True)
    if version != SCHEMA_VERSION:
        raise top.fault("schemaVersion", f"must be '{SCHEMA_VERSION}', found {printable(version)}")
    fleet_id = top.text("fleetId") or DEFAULT_FLEET_ID
    loops = top.get("loops", "array", needed=True)
    if not loops:
        raise top.fault("loops", "must hold at least one loop")
    entries: dict[str, Entry] = {}
    for index, loop in enumerate(loops):
        entry = _entry(loop, index)
        if entry.loop_id in entries:
            other = list(entries).index(entry.loop_id)
            raise _where(loop, index).fault("loopId", f"is that of loops[{other}], too")
        entries[entry.loop_id] = entry
    return Registry(fleet_id, tuple(entries.values()))


class _Object(NamedTuple):
    """An object of the document. where: begins each message, such as "loops[2] (loop 'a'): "."""

    where: str
    value: JSON
    prefix: str = ""

    def fault(self, member: str, problem: str) -> OpsError:
        member = f"{self.prefix}{member}" or "the registry"
        return OpsError("registry_invalid", f"{self.where}{member} {problem}", field=member)

    def get(self, member: str, kind: str, *, needed: bool = False) -> JSON:
        """The member, which must be of a kind; None when it is absent or null, unless it is needed."""
        if not isinstance(self.value, dict):
            raise self.fault("", f"must be an object, found {kind_of(self.value)}")
        value = self.value.get(member)
        if value is None and not needed:
            return None
        if kind_of(value) != kind:
            found = kind_of(value) if member in self.value else "nothing"
            article = "an" if kind[0] in "ao" else "a"
            raise self.fault(member, f"must be {article} {kind}, found {found}")
        return value

    def text(self, member: str, *, needed: bool = False) -> str:
        """A text that every document and message can hold; "" when it is absent."""
        value = self.get(member, "string", needed=needed)
        if value is None:
            return ""
        if not value:
            raise self.fault(member, "must not be an empty string")
        if has_control(value) or any("\ud800" <= char <= "\udfff" for char in value):
            raise self.fault(member, "must be a string without control characters and lone surrogates")
        return str(value)

    def inner(self, member: str) -> "_Object":
        """The object in a member; an empty one when it is absent."""
        found = self.get(member, "object")
        return _Object(self.where, {} if found is None else found, f"{self.prefix}{member}.")

    def closed(self, members: tuple[str, ...]) -> None:
        """Refuse members with other names."""
        for member in self.value:
            if member not in members:
                found = f"{printable(member)} (found {kind_of(self.value[member])})"
                shown = self.prefix.removesuffix(".") or "the entry"
                raise OpsError(
                    "registry_invalid",
                    f"{self.where}{shown} has no member {found}; there are {', '.join(members)}",
                    field=f"{self.prefix}{member}",
                )


def _where(loop: JSON, index: int) -> _Object:
    named = loop.get("loopId") if isinstance(loop, dict) else None
    loop_id = f" (loopId {printable(named)})" if isinstance(named, str) else ""
    return _Object(f"loops[{index}]{loop_id}: ", loop)


def _entry(loop: JSON, index: int) -> Entry:
    if not isinstance(loop, dict):
        raise OpsError("registry_invalid", f"loops[{index}] must be an object, found {kind_of(loop)}")
    found = _where(loop, index)
    found.closed(_ENTRY_MEMBERS)
    loop_id = _loop_id(found)
    enabled = found.get("enabled", "boolean")
    transport = found.text("transport") or LOCAL
    if transport not in _TRANSPORTS:
        problem = f"must be one of {', '.join(_TRANSPORTS)}, found {printable(transport)}"
        raise found.fault("transport", problem)
    found.get("metadata", "object")
    sprite, service = found.inner("sprite"), found.inner("service")
    service.closed(_SERVICE_MEMBERS)
    base_url = service.text("baseUrl")
    # Each stands in for the other.
    base_url = base_url or sprite.text("serviceBaseUrl")
    if transport == SPRITE_SERVICE and not base_url:
        raise found.fault("service.baseUrl", f"is needed for transport {SPRITE_SERVICE}, found nothing")
    token_env = service.text("tokenEnv")
    if token_env and not re.match(_VARIABLE, token_env):
        # Not shown: it may be the token itself.
        raise service.fault("tokenEnv", "must name a variable: letters, digits and _, no digit in front")
    signing_key_file = service.text("signingKeyFile")
    if signing_key_file and not signing_key_file.startswith("/"):
        raise service.fault(
            "signingKeyFile", f"must be an absolute path, found {printable(signing_key_file)}"
        )
    attempts, backoff = _retry(service)
    return Entry(
        loop_id=loop_id,
        enabled=enabled is not False,
        transport=transport,
        base_url=base_url if transport == SPRITE_SERVICE else "",
        token_env=token_env if transport == SPRITE_SERVICE else "",
        signing_key_file=signing_key_file if transport == SPRITE_SERVICE else "",
        trust=_trust(service) if transport == SPRITE_SERVICE else None,
        sprite_id=sprite.text("id"),
        retry_attempts=attempts,
        retry_backoff_seconds=backoff,
    )


def _trust(service: _Object) -> Trust | None:
    """Whom to believe to be the service."""
    found = service.inner("tls")
    found.closed(_TLS_MEMBERS)
    ca, cert, key, server_name = (found.text(member) for member in _TLS_MEMBERS)
    trust = Trust(ca, cert, key, server_name, member="service.tls")
    if trust.half is not None:
        given, missing = trust.half
        raise found.fault(missing, f"is needed beside {found.prefix}{given}, found nothing")
    return trust if ca or cert or server_name else None


def _loop_id(found: _Object) -> str:
    loop_id = str(found.get("loopId", "string", needed=True))
    try:
        validate_loop_id(loop_id, field="loopId")
    except OpsError as error:
        raise OpsError("registry_invalid", f"{found.where}{error.message}", field="loopId") from error
    if loop_id == FLEET_DIRECTORY:
        raise found.fault("loopId", "is the name of the fleet's own directory")
    return loop_id


def _retry(service: _Object) -> tuple[int, float]:
    """Tries in all, and seconds between them."""
    default = Entry("")
    attempts, backoff = default.retry_attempts, default.retry_backoff_seconds
    number = service.get("retryAttempts", "number")
    if number is not None:
        # In bounds first: a number of hundreds of digits is no whole one in any use.
        attempts = (whole(number) or 0) if 1 <= number <= MAX_RETRY_ATTEMPTS else 0
        if not attempts:
            problem = f"must be a whole number from 1 to {MAX_RETRY_ATTEMPTS}, found {_shown(number)}"
            raise service.fault("retryAttempts", problem)
    number = service.get("retryBackoffSeconds", "number")
    if number is not None:
        if not 0 <= number <= MAX_RETRY_BACKOFF_SECONDS:
            problem = f"must be from 0 to {MAX_RETRY_BACKOFF_SECONDS}, found {_shown(number)}"
            raise service.fault("retryBackoffSeconds", problem)
        backoff = float(number)
    return attempts, backoff


def _shown(number: float) -> str:
    """A number for a message, which one of thousands of digits would fill."""
    return f"{number:g}" if abs(number) < 1e15 else "one beyond all bounds"
