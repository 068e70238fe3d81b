"""Pieces that both envelopes share: numbers, runtime JSON, checked reading of members."""

from spritemesh import jsontext
from spritemesh.errors import OpsError, kind_of
from spritemesh.ids import printable
from spritemesh.jsontext import JSON
from spritemesh.values import get, whole
from superloop.ops.v1 import envelope_pb2 as pb

SCHEMA_VERSION = "v1"
SEQUENCE_SOURCE = "cursor_event_line_offset"
INT64 = range(-(2**63), 2**63)
UINT64 = range(2**64)


def number_fields(value: float) -> tuple[int, str]:
    """`iteration` and `iteration_literal` of a message for a JSON number."""
    if isinstance(value, int) and value in INT64:
        return value, ""
    return 0, jsontext.encode(value).decode()


def number_value(iteration: int, literal: str) -> int | float:
    """The JSON number of the two fields. Raises as parse_carried when `literal` is no number."""
    if not literal:
        return iteration
    value: JSON = parse_carried(literal, "iteration_literal")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise OpsError("service_response_invalid", f"iteration_literal holds {kind_of(value)}, not a number")
    return value


def json_object(value: JSON) -> pb.JsonObject | None:
    """`value` as a message; None, to be left unset, for null."""
    return None if value is None else pb.JsonObject(json=jsontext.encode(value).decode())


def json_value(message: pb.JsonObject, present: bool) -> JSON:
    """The value of a message, null when it is not present. Raises as parse_carried."""
    return parse_carried(message.json, "a JsonObject") if present else None


def parse_carried(text: str, what: str) -> JSON:
    """The value of JSON text in a message.

    Raises OpsError `service_response_invalid`, naming `what`: whoever made the message owed valid JSON.
    """
    try:
        return jsontext.parse(text)
    except jsontext.JSONError as error:
        raise OpsError("service_response_invalid", f"{what} holds no valid JSON: {error}") from error


def storable(text: str) -> str:
    """`text` as a protobuf string can hold it: lone surrogates become U+FFFD, as they do in v1."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Members:
    """Members of a JSON object, read with a check of their kind.

    what: names the document in messages. reason: code of the error that a wrong kind raises.
    """

    def __init__(self, document: JSON, what: str, reason: str = "projection_failed") -> None:
        self.document = document
        self.what = what
        self.reason = reason
        if not isinstance(document, dict):
            raise self.error("the document", document, "an object")

    def error(self, path: str, value: JSON, expected: str) -> OpsError:
        return OpsError(
            self.reason, f"{self.what}: {path} must be {expected}, found {kind_of(value)}", field=path
        )

    def value(self, *path: str) -> JSON:
        return get(self.document, *path)

    def check_objects(self, *names: str) -> None:
        """Refuse members of the document that are there and no objects."""
        for name in names:
            self.is_object(name)

    def is_object(self, *path: str) -> bool:
        """Whether the member is there, and not null; other kinds than an object are refused."""
        value = self.value(*path)
        if value is not None and not isinstance(value, dict):
            raise self.error(".".join(path), value, "an object")
        return value is not None

    def text(self, *path: str) -> str | None:
        """A string, fit for a message, or null; other kinds are refused."""
        value = self.value(*path)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.error(".".join(path), value, "a string or null")
        return storable(value)

    def required_text(self, *path: str) -> str:
        value = self.value(*path)
        if not isinstance(value, str):
            raise self.error(".".join(path), value, "a string")
        return storable(value)

    def number(self, *path: str) -> int | float:
        """A number; absent or null is 0."""
        value = self.value(*path)
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(".".join(path), value, "a number")
        return value

    def count(self, *path: str) -> int | None:
        """A whole number that is not negative; None for everything else, as v1 treats it (G.5)."""
        value = whole(self.value(*path))
        return value if value is not None and value in UINT64 else None

    def whole(self, *path: str, bits: range) -> int | None:
        """A whole number within `bits` (UINT64, INT64), or null; everything else is refused."""
        value = self.value(*path)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value not in bits:
            raise self.error(".".join(path), value, f"a whole number from {bits.start} to {bits.stop - 1}")
        return value

    def flag(self, *path: str) -> bool | None:
        """A boolean or None when absent or null; other kinds are refused."""
        value = self.value(*path)
        if value is not None and not isinstance(value, bool):
            raise self.error(".".join(path), value, "a boolean")
        return value

    def require(self, expected: str, *path: str) -> None:
        value = self.value(*path)
        if value != expected:
            shown = printable(value) if isinstance(value, str) else kind_of(value)
            raise OpsError(
                self.reason,
                f"{self.what}: {'.'.join(path)} must be '{expected}', found {shown}",
                field=".".join(path),
            )
