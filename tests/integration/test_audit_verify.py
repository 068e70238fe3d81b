"""`ops-manager audit verify`, over what control really writes."""

import os
from pathlib import Path

import pytest

from spritemesh import traceindex
from spritemesh.audit import audit_files
from spritemesh.chaining import ChainFiles
from tests.harness.control import Runtime, audit_directory
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.manager import Ran, run


@pytest.fixture
def paths(repo: Repo, loop: LoopFiles, tmp_path: Path) -> ChainFiles:
    """The audit of three requests."""
    loop.append(event(1))
    runtime = Runtime(tmp_path / "runtime")
    words = ("--repo", str(repo.root), "--loop", "alpha", "--runtime-command", str(runtime.path))
    asked = ("--intent", "cancel", "--no-confirm", "--trace-id", "t")
    for number in (1, 2, 3):
        ran = run("control", *words, *asked, "--idempotency-key", f"key-{number}")
        assert ran.code == 0, ran.err
    return audit_files(str(audit_directory(repo))).chained


def verify(repo: Repo, *words: str) -> Ran:
    return run("audit", "verify", "--repo", str(repo.root), *words)


def test_a_whole_audit_is_told_with_its_head(repo: Repo, paths: ChainFiles) -> None:
    ran = verify(repo)
    assert (ran.code, ran.err) == (0, "")
    [document] = ran.documents
    head = Path(paths.head).read_text().strip()
    assert document["status"] == "whole"
    assert document["loops"] == [
        {"loopId": "alpha", "status": "whole", "lines": 3, "chained": 3, "head": head, "notes": []}
    ]
    shown = verify(repo, "--output", "table").out
    for fact in ("alpha  whole", "3 lines, 3 of them chained", head):
        assert fact in shown
    assert verify(repo, "--loop", "alpha", "--expect", head).code == 0


def test_the_user_of_a_command_line_is_on_record(repo: Repo, paths: ChainFiles) -> None:
    user = f"uid {os.getuid()} ("
    assert Path(paths.chain).read_text().count(user) == 3
    steps = [step for step in traceindex.find(str(repo.root), "t").entries if step.kind == "intent"]
    assert len(steps) == 3
    assert all(step.detail["connected"]["address"].startswith(user) for step in steps)


def test_a_fault_is_named_and_ends_in_1(repo: Repo, paths: ChainFiles) -> None:
    audit = Path(paths.audit)
    audit.write_bytes(audit.read_bytes().replace(b'"key-2"', b'"key-x"'))
    ran = verify(repo)
    [document] = ran.documents
    [told] = document["loops"]
    assert (ran.code, document["status"], told["status"], told["chained"]) == (1, "tampered", "tampered", 1)
    fault = told["fault"]
    assert (fault["kind"], fault["line"], fault["idempotencyKey"]) == ("line_altered", 2, "key-2")
    assert fault["file"] == os.path.relpath(paths.audit, repo.root)
    assert fault["at"].endswith("Z")
    assert ran.err.startswith("error: loop 'alpha': line 2 was altered (")
    assert ran.err.endswith(" [audit_tampered]\n")
    shown = verify(repo, "--output", "table").out
    assert "TAMPERED" in shown
    assert "key key-2" in shown


def test_lines_of_a_v1_tool_are_a_note(repo: Repo, paths: ChainFiles) -> None:
    with open(paths.audit, "ab") as file:
        file.write(b'{"schemaVersion":"v1"}\n')
    ran = verify(repo)
    assert ran.code == 0
    assert ran.documents[0]["loops"][0]["notes"] == [
        {"kind": "without_row", "count": 1, "firstLine": 4, "lastLine": 4}
    ]
    assert "line 4: at the end" in " ".join(verify(repo, "--output", "table").out.split())


def test_what_was_cut_off_everywhere_is_found_by_an_older_head(repo: Repo, paths: ChainFiles) -> None:
    head = Path(paths.head).read_text().strip()
    for path in paths:
        os.unlink(path)
    assert verify(repo, "--loop", "alpha").documents[0]["loops"][0]["status"] == "no_audit"
    ran = verify(repo, "--loop", "alpha", "--expect", head)
    assert ran.code == 1
    assert ran.documents[0]["loops"][0]["fault"]["kind"] == "not_expected"
    # It may be copied back.
    os.makedirs(audit_directory(repo, "beta") / "telemetry")
    Path(audit_files(str(audit_directory(repo, "beta"))).invocations).write_text("by v1\n")
    told = {loop["loopId"]: loop["status"] for loop in verify(repo).documents[0]["loops"]}
    assert told == {"alpha": "no_audit", "beta": "no_chain"}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("audit",), "audit takes the word verify, not ''"),
        (("audit", "verify", "--expect", f"1:{'a' * 64}"), "--expect takes the head of one loop"),
        (("audit", "verify", "--loop", "alpha", "--expect", "1:x"), "--expect must be"),
        (("audit", "verify", "--loop", "../x"), "--loop"),
    ],
)
def test_odd_command_lines_are_refused(repo: Repo, words: tuple[str, ...], what: str) -> None:
    ran = run(*words, "--repo", str(repo.root))
    assert (ran.code, ran.out) == (1, "")
    assert what in ran.err


def test_a_file_that_cannot_be_read_is_named(repo: Repo, paths: ChainFiles) -> None:
    os.unlink(paths.chain)
    os.mkdir(paths.chain)
    ran = verify(repo)
    assert (ran.code, "document_invalid" in ran.err) == (1, True)
