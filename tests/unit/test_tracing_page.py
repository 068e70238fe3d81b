"""docs/tracing.md tells what is so: its snippets run, its tables name what there is."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spritemesh import names
from spritemesh.tracing import settings
from tests.harness.agents import ROOT, environment
from tools import tracing as page

PAGE = (ROOT / "docs/tracing.md").read_text("utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_table_of_points_is_that_of_the_catalog() -> None:
    assert page.updated(PAGE) == PAGE


def test_snippets_run_one_after_the_other_and_trace(tmp_path: Path) -> None:
    assert len(SNIPPETS) >= 8
    program = tmp_path / "agent.py"
    calls = 'import asyncio\nclassify("a ticket")\nasyncio.run(store("ada"))\n'
    program.write_text("\n".join([SNIPPETS[0], *SNIPPETS[1:-1], calls, SNIPPETS[-1]]), "utf-8")
    subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        env=environment() | {"DOPEJAR_TRACE": "1"},
        check=True,
        capture_output=True,
        timeout=30,
    )
    told = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_bytes().splitlines()]
    operations = [span["operation"] for span in told]
    assert operations == [
        *("plan", "read", "consent_check", "pattern_trim", "write", "transition"),
        *("escalate", "route", "serve", "classify", "promote", "write"),
    ]
    assert told[2]["status"] == "blocked"
    asked, served = told[operations.index("route")], told[operations.index("serve")]
    assert served["parent_id"] == asked["trace_id"]
    assert served["metadata"] == {"ops_trace_id": "deploy-42"}
    example = json.loads(re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)[0])
    assert list(told[0]) == list(example)
    assert (tmp_path / "mine.jsonl").exists()


def test_settings_file_of_the_page_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".superloop").mkdir()
    (tmp_path / ".superloop/settings.yaml").write_text(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0])
    found = settings.resolved({})
    assert found.enabled
    assert (found.output, found.level, found.problems) == (".superloop/trace.jsonl", "info", ())


def test_variables_and_levels_of_the_page_are_those_that_are_read() -> None:
    variables = {
        value for module in (names, settings) for name, value in vars(module).items() if "VARIABLE" in name
    }
    told = set(re.findall(r"^\| `(DOPEJAR_\w+)` \|", PAGE, flags=re.MULTILINE))
    assert told == {name for name in variables if name.startswith("DOPEJAR_")}
    row = next(line for line in PAGE.splitlines() if line.startswith("| `DOPEJAR_TRACE_LEVEL`"))
    assert set(settings.LEVELS) <= set(re.findall(r"`(\w+)`", row))
    assert str(settings.DEFAULT_MAX_BYTES) in PAGE
