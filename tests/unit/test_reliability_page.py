"""docs/reliability.md names tests that there are."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reliability.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


def test_page_names_tests_for_every_promise() -> None:
    promises = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    proved = [text.splitlines()[0] for text in promises if "::test_" in text]
    assert len(proved) >= 6
    assert len(NAMED) > 30


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED}))
def test_tests_that_the_page_names_exist(file: str) -> None:
    tree = ast.parse((ROOT / "tests" / file).read_bytes())
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert {name for named, name in NAMED if named == file} <= found
