"""The list of what an installation runs, the check of it, and the wheel."""

import json
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import audit, sbom, wheel

PROJECT = tomllib.loads((wheel.ROOT / "pyproject.toml").read_text("utf-8"))["project"]


@pytest.fixture(scope="module")
def listed() -> str:
    return sbom.document()[1]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def test_the_list_is_of_its_standard_and_always_the_same(listed: str) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(listed) is None
    assert sbom.document()[1] == listed


def test_the_list_holds_what_runs_and_no_more(listed: str) -> None:
    document = json.loads(listed)
    found = {part["name"]: part for part in document["components"]}
    assert names(PROJECT["dependencies"]) <= found.keys()
    # Needed by needs of ours; and tools that nothing needs to run.
    assert {"h11", "idna"} <= found.keys()
    assert not found.keys() & {"pytest", "mypy", "ruff", "pip-audit", "hypothesis"}
    for name, part in found.items():
        assert part["version"] == version(name)
        assert part["licenses"]
        assert part["hashes"]
        assert all(len(item["content"]) == 64 for item in part["hashes"])
    needs = {item["ref"]: item.get("dependsOn", []) for item in document["dependencies"]}
    own = document["metadata"]["component"]["bom-ref"]
    assert {ref.partition("@")[0].removeprefix("pkg:pypi/") for ref in needs[own]} == names(
        PROJECT["dependencies"]
    )
    assert {ref for below in needs.values() for ref in below} | {own} == needs.keys()


def test_a_package_that_is_not_the_locked_one_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"pytest .* is installed, but requirements.lock has 0: make install"
    ):
        sbom.component("pytest", sbom.Locked("0", []))


def package(name: str, *found: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"name": name, "version": "1", "vulns": list(found)} | members


FAULT = {"id": "PYSEC-1", "aliases": ["CVE-2"], "fix_versions": ["2"]}


@pytest.mark.parametrize(
    ("packages", "code", "told"),
    [
        ([package("a"), package("b")], 0, "nothing is known against the 2 packages of requirements.lock"),
        ([package("a"), package("b", FAULT)], 1, "b 1: PYSEC-1, CVE-2; mended in 2"),
        ([package("b", FAULT | {"fix_versions": []})], 1, "b 1: PYSEC-1, CVE-2; mended in no version yet"),
        # What pip-audit itself takes for a clean answer.
        (
            [package("a"), {"name": "b", "skip_reason": "not found"}],
            3,
            "no data on 1 of 2 packages (b): nothing is said of them",
        ),
        ([], 3, "no data on 0 of 0 packages (): nothing is said of them"),
        (
            [{"name": "a", "skip_reason": "not found"}, package("b", FAULT)],
            1,
            "b 1: PYSEC-1, CVE-2; mended in 2",
        ),
    ],
)
def test_packages_that_nobody_knows_of_are_not_called_clean(
    packages: list[dict[str, Any]], code: int, told: str
) -> None:
    assert audit.judge({"dependencies": packages}) == (code, [told])


def test_the_wheel_holds_the_programs_and_nothing_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel.build(wheel.ROOT, tmp_path)) as archive:
        entries = archive.infolist()
    tops = {entry.filename.partition("/")[0] for entry in entries}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "manager",
        "spritemesh",
        "sprite_agent",
        "superloop",
    }
    assert not [entry.filename for entry in entries if "__pycache__" in entry.filename]
    assert {entry.external_attr >> 16 & 0o777 for entry in entries} <= {0o644, 0o755}
    assert len({entry.date_time for entry in entries}) == 1
