"""The one table of reasons, the errors that carry them, and that nobody uses a code it lacks."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import grpc
import pytest

from spritemesh import reasons
from spritemesh.errors import GRPC_STATUS, OpsError, kind_of
from spritemesh.reasons import REASONS, Fault, Severity
from tools import runbook

ROOT = Path(reasons.__file__).parents[1]
PACKAGES = ("spritemesh", "sprite_agent", "manager")
# Members of documents, and attributes and arguments in code, that hold a code.
MEMBERS = {"reasonCode", "reasonCodes", "failureReasonCodes", "failureCode", "lastFailureCode", "verdict"}
NAMES = {"reason", "reason_code", "failure_code", "snapshot_problem", "verdict"}
# What `confirm-intent` says of the effect it saw (contract E.3): a member `reason`, and no code of the table.
SEEN = {"inactive_not_running", "completion_observed", "rejection_observed", "timeout"}


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
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from texts(value)
    elif isinstance(node, ast.Call):
        # A look-up in a table of codes, or a set of them: {...}.get(status, "code"), frozenset({...}).
        if isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            yield from texts(node.func.value) if isinstance(node.func.value, ast.Dict) else ()
            yield from (text for argument in node.args[1:] for text in texts(argument))
        elif named(node.func) in {"frozenset", "nz"}:
            yield from (text for argument in node.args for text in texts(argument))


def named(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def is_place(target: ast.expr) -> bool:
    """Whether a code is assigned here: to a name of NAMES, a table named for reasons, row["reasonCode"]."""
    if isinstance(target, ast.Subscript):
        return isinstance(target.slice, ast.Constant) and target.slice.value in MEMBERS
    name = named(target)
    return name in NAMES or (name.isupper() and name.strip("_").split("_")[-1] in {"REASON", "REASONS"})


def places(tree: ast.AST) -> Iterator[tuple[str, frozenset[int]]]:
    """Functions and classes, and where among their positional arguments they take a code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
            if arguments[:1] in (["self"], ["cls"]):
                arguments = arguments[1:]
        elif isinstance(node, ast.ClassDef):
            arguments = [named(field.target) for field in node.body if isinstance(field, ast.AnnAssign)]
        else:
            continue
        yield node.name, frozenset(place for place, name in enumerate(arguments) if name in NAMES)


def agreed(found: Iterable[tuple[str, frozenset[int]]]) -> dict[str, frozenset[int]]:
    """Of names that are defined more than once, what all definitions agree on."""
    taking: dict[str, frozenset[int]] = {}
    for name, where in found:
        taking[name] = taking.get(name, where) & where
    return taking


def codes(tree: ast.AST, taking: Mapping[str, frozenset[int]]) -> Iterator[tuple[int, str]]:
    """Line and text of every literal that stands where a reason code belongs. taking: as places tells."""
    for node in ast.walk(tree):
        found: list[ast.expr | None] = []
        if isinstance(node, ast.Call):
            if named(node.func) in {"OpsError", "LogChange"} and node.args:
                found.append(node.args[0])
            if named(node.func) != "Reason":
                found += [keyword.value for keyword in node.keywords if keyword.arg in NAMES]
                wanted = taking.get(named(node.func), frozenset())
                found += [argument for place, argument in enumerate(node.args) if place in wanted]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            plain, given = (*node.args.posonlyargs, *node.args.args), node.args.defaults
            pairs = [*zip(plain[len(plain) - len(given) :], given, strict=True)]
            pairs += [
                (argument, default)
                for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
                if default is not None
            ]
            found += [default for argument, default in pairs if argument.arg in NAMES]
            if node.name.strip("_") in NAMES:
                found += [inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return)]
        elif isinstance(node, ast.Dict):
            found += [
                value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value in MEMBERS
            ]
        elif isinstance(node, ast.Compare) and named(node.left) in NAMES:
            found += node.comparators
        elif (isinstance(node, ast.Assign) and any(map(is_place, node.targets))) or (
            isinstance(node, ast.AnnAssign) and is_place(node.target)
        ):
            found.append(node.value)
        for expression in found:
            for text in texts(expression):
                if text and text not in SEEN:
                    yield getattr(node, "lineno", 0), text


def test_every_code_in_this_repository_is_in_the_table() -> None:
    # The verdicts of a runtime's own layers are no codes.
    others = ROOT / "spritemesh" / "tracing" / "catalog.py"
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sources() if path != others}
    everywhere = agreed(pair for tree in trees.values() for pair in places(tree))
    public = {name: where for name, where in everywhere.items() if not name.startswith("_")}
    found = [
        (f"{path.relative_to(ROOT)}:{line}", code)
        for path, tree in trees.items()
        for line, code in codes(tree, public | agreed(places(tree)))
    ]
    assert len(found) > 150
    assert [(where, code) for where, code in found if code not in REASONS] == []


def test_every_code_in_the_table_is_used_or_promised_by_the_contract() -> None:
    """A code that nobody can meet misleads whoever reads the runbook."""
    # The last two only v1's dispatcher writes: ours refuses the catalog instead.
    promised = {"reconcile_failed", "invalid_route_resolution", "unsupported_sink_type"}
    everything = "\n".join(
        path.read_text(encoding="utf-8") for path in sources() if path.name != "reasons.py"
    )
    # `control_` + the status of the last intent is put together where health is judged.
    together = {"control_ambiguous", "control_failed_command"}
    unused = [code for code in REASONS if not re.search(rf"\b{code}\b", everything)]
    assert set(unused) <= promised | together


@pytest.mark.parametrize(
    "source",
    [
        'OpsError("CODE", "x")',
        'refuse(reason="CODE")',
        'told("CODE")',
        'Verdict(1, "CODE")',
        'x = {"reasonCode": "a_known" if y else "CODE"}',
        'row["failureCode"] = "CODE"',
        'self.reason = first or "CODE"',
        'reason: str = "CODE"',
        '_REASONS = {404: "CODE"}',
        '_LOST_REASONS = frozenset({"CODE"})',
        'def reason_code(x):\n    return {1: "CODE"}.get(x)',
        'def f(*, reason="CODE"): ...',
        'if error.reason in {"CODE"}: ...',
    ],
)
def test_code_is_found_wherever_one_belongs(source: str) -> None:
    taking = {"told": frozenset({0}), "Verdict": frozenset({1})}
    assert "CODE" in [code for _, code in codes(ast.parse(source), taking)]


def test_functions_and_classes_that_take_a_code_are_known_by_their_arguments() -> None:
    source = "class A:\n    x: int\n    reason: str\n    def told(self, reason, y): ...\n"
    assert dict(places(ast.parse(source))) == {"A": {1}, "told": {0}}
    assert agreed([("a", frozenset({0, 1})), ("a", frozenset({1}))]) == {"a": {1}}


def test_runbook_holds_every_code_once() -> None:
    page = runbook.tables()
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == sorted(REASONS)
    assert runbook.updated((ROOT / runbook.PAGE).read_text(encoding="utf-8")).count(page) == 1
