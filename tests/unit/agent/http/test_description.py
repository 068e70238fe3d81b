"""The OpenAPI description of the bridge is true: paths, statuses and codes are those of the code."""

from typing import Any

import jsonschema
import pytest

from sprite_agent.http import answers
from sprite_agent.http.bridge import Bridge
from sprite_agent.http.description import description
from spritemesh.reasons import REASONS, Fault
from tests.harness.agents import StartAgent
from tests.harness.http import ask, get
from tests.harness.loops import LoopFiles

DOCUMENT = description()
PATHS: dict[str, dict[str, Any]] = DOCUMENT["paths"]


def codes(response: dict[str, Any]) -> set[str] | None:
    """The codes that a refusal may have; None when it is any reason."""
    schema = response["content"]["application/json"]["schema"]
    parts = schema.get("allOf")
    return set(parts[1]["properties"]["error"]["properties"]["code"]["enum"]) if parts else None


def test_it_describes_the_paths_and_methods_that_are_served() -> None:
    described = {(method.upper(), path) for path, operations in PATHS.items() for method in operations}
    heads = {("HEAD", path) for method, path in Bridge.ROUTES if method == "GET"}
    assert described == {*Bridge.ROUTES, *heads}


def test_it_has_each_status_and_code_that_a_reason_becomes() -> None:
    refusals = DOCUMENT["components"]["responses"]
    tables = (answers._OF_FAULT.values(), answers._OF_REASON.values(), answers._OF_CONTROL_FAULT.values())
    found: dict[str, set[str]] = {}
    for status in (status for table in tables for status in table):
        found.setdefault(str(status.number), set()).add(status.code)
    # 405 has one reason only, whose name it bears.
    found["405"] = {code for code, row in REASONS.items() if row.fault is Fault.UNKNOWN_METHOD}
    assert {name.removeprefix("Refused") for name in refusals} == set(found)
    for number, known in found.items():
        assert codes(refusals[f"Refused{number}"]) == (None if "" in known else known), number


def test_each_refusal_is_told_of_where_it_may_come() -> None:
    told = {
        status
        for operations in PATHS.values()
        for operation in operations.values()
        for status in operation["responses"]
    }
    described = {name.removeprefix("Refused") for name in DOCUMENT["components"]["responses"]}
    assert told == described | {"200"}
    for path, operations in PATHS.items():
        for method, operation in operations.items():
            assert operation["responses"].keys() >= {"200", "400", "401", "503"}, (method, path)


@pytest.mark.parametrize("name", DOCUMENT["components"]["schemas"])
def test_its_schemas_are_schemas_and_lead_somewhere(name: str) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator.check_schema(DOCUMENT["components"]["schemas"][name])
    # An unresolvable reference raises; that 0 fits nothing else does not.
    assert list(jsonschema.Draft202012Validator(schema).iter_errors(0))


def test_an_agent_serves_it_to_whom_it_lets_in(loop: LoopFiles, start: StartAgent) -> None:
    agent = start("--http", "127.0.0.1:0")
    address = str(agent.ready["http"])
    assert ask(address, get("/openapi.json")).document == DOCUMENT
    assert ask(address, get("/openapi.json", b"")).error == (401, "unauthorized")
