"""The OpenAPI description of the bridge: package data, completed with the schemas of the contract."""

import os

from spritemesh import jsontext
from spritemesh.bridge.schemas import load_schema
from spritemesh.jsontext import JSON

_FILE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "openapi.json")
# Schemas of the description that are the contract's: component -> name there.
_OF_CONTRACT = {"Snapshot": "loop_run_snapshot", "Event": "loop_run_event"}


def description() -> dict[str, JSON]:
    """The document that GET /openapi.json answers with: OpenAPI 3.1."""
    with open(_FILE, "rb") as file:
        document: dict[str, JSON] = jsontext.parse(file.read())
    for component, name in _OF_CONTRACT.items():
        schema = load_schema(name)
        # Where it stands, its own definitions are reached from the document's root.
        del schema["$schema"], schema["$id"]
        document["components"]["schemas"][component] = _moved(schema, f"#/components/schemas/{component}")
    return document


def _moved(value: JSON, place: str) -> JSON:
    """A schema whose references within itself lead to `place`."""
    if isinstance(value, list):
        return [_moved(element, place) for element in value]
    if not isinstance(value, dict):
        return value
    return {
        name: place + member.removeprefix("#") if name == "$ref" else _moved(member, place)
        for name, member in value.items()
    }
