"""The one table of reasons, the errors that carry them, and that nobody uses a code it lacks."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from spritemesh import reasons
from spritemesh.errors import GRPC_STATUS, OpsError, kind_of
from spritemesh.reasons import REASONS, Fault, Severity

ROOT = Path(reasons.__file__).parents[1]
PACKAGES = ("spritemesh", "sprite_agent", "manager")
# Members of documents, and attributes and arguments in code, that hold a code.
MEMBERS = {"reasonCode", "failureCode", "lastFailureCode", "verdict"}
NAMES = {"reason", "failure_code", "snapshot_problem", "verdict"}


def test_codes_are_unique_and_spelled_alike() -> None:
    assert len(REASONS) == len(reasons._ROWS)
    for code in REASONS:
        assert re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", code), code


@pytest.mark.parametrize("code", REASONS)
def test_reason_says_what_it_means_and_what_to_do(code: str) -> None:
    row = reasons.reason(code)
    assert row.code == code
    assert isinstance(row.severity, Severity)
    assert isinstance(row.fault, Fault)
    for sentence in (row.meaning, row.next_step):
        assert sentence == sentence.strip()
        assert sentence.endswith(".")
        assert "\n" not in sentence


def test_code_that_the_table_lacks_is_a_defect() -> None:
    with pytest.raises(KeyError):
        reasons.reason("no_such_code")
    with pytest.raises(KeyError):
        OpsError("no_such_code", "message")


def test_full_agent_is_no_fault_of_the_request() -> None:
    assert OpsError("too_many_streams", "full").grpc_status == "RESOURCE_EXHAUSTED"


def test_every_fault_becomes_a_status_that_grpc_knows() -> None:
    assert set(GRPC_STATUS) == set(Fault)
    for name in GRPC_STATUS.values():
        assert grpc.StatusCode[name] is not grpc.StatusCode.OK


@pytest.mark.parametrize("code", REASONS)
def test_error_of_every_reason_has_a_status(code: str) -> None:
    error = OpsError(code, "message")
    assert error.grpc_status == GRPC_STATUS[REASONS[code].fault]
    assert (error.reason, error.row, str(error)) == (code, REASONS[code], "message")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("two\nlines", "two lines"),
        ("path \udcff.json", "path \\udcff.json"),
        ("half \ud83d", "half \\ud83d"),
        ("é 😀", "é 😀"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("\x9b2J \r\t\x7f", "\\x9b2J \\r\\t\\x7f"),
        ("turned \u202e round", "turned \\u202e round"),
        ("", ""),
    ],
)
def test_message_is_one_line_that_every_edge_can_write(message: str, told: str) -> None:
    error = OpsError("invalid_request", message)
    assert error.message == told
    error.message.encode()


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "boolean"),
        (0, "number"),
        (1.5, "number"),
        ("", "string"),
        ([], "array"),
        ((), "array"),
        ({}, "object"),
    ],
)
def test_kind_of_a_value_is_its_json_kind(value: object, kind: str) -> None:
    assert kind_of(value) == kind


# --- what the code says ---------------------------------------------------------------------------------


def sources() -> list[Path]:
    found = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(found) > 50
    return found


def texts(node: ast.expr | None) -> Iterator[str]:
    """The string literals that an expression may give."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body)
        yield from texts(node.orelse)
    elif isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from texts(value)
    elif isinstance(node, ast.Set | ast.Tuple | ast.List):
        for element in node.elts:
            yield from texts(element)


def named(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def codes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every literal that stands where a reason code belongs."""
    for node in ast.walk(tree):
        found: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            if named(node.func) in {"OpsError", "LogChange"} and node.args:
                found.append(node.args[0])
            if named(node.func) != "Reason":
                found += [keyword.value for keyword in node.keywords if keyword.arg in NAMES]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            plain, given = node.args.args, node.args.defaults
            pairs = [*zip(plain[len(plain) - len(given) :], given, strict=True)]
            pairs += [
                (argument, default)
                for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                if default is not None
            ]
            found += [default for argument, default in pairs if argument.arg in NAMES]
        elif isinstance(node, ast.Dict):
            found += [
                value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value in MEMBERS
            ]
        elif isinstance(node, ast.Compare) and named(node.left) in NAMES:
            found += node.comparators
        elif isinstance(node, ast.Assign) and any(named(target) in NAMES for target in node.targets):
            found.append(node.value)
        for expression in found:
            for text in texts(expression):
                if text:
                    yield getattr(node, "lineno", 0), text


def test_every_code_in_this_repository_is_in_the_table() -> None:
    found = [
        (f"{path.relative_to(ROOT)}:{line}", code)
        for path in sources()
        for line, code in codes(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert len(found) > 80
    assert [(where, code) for where, code in found if code not in REASONS] == []


def test_every_code_in_the_table_is_used_or_promised_by_the_contract() -> None:
    """A code that nobody can meet misleads whoever reads the runbook."""
    promised = {"reconcile_failed"}
    everything = "\n".join(
        path.read_text(encoding="utf-8") for path in sources() if path.name != "reasons.py"
    )
    # `control_` + the status of the last intent is put together where health is judged.
    together = {"control_ambiguous", "control_failed_command"}
    unused = [code for code in REASONS if not re.search(rf"\b{code}\b", everything)]
    assert set(unused) <= promised | together
