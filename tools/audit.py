"""Looks up what is known against the packages of requirements.lock, with pip-audit.

    python -m tools.audit

Exit code 0: every package was looked up, and nothing is known. 1: something is known against one; what, and
which version mends it, is told. 3: for some packages, or for all, there is nobody to ask, so that nothing can
be said.
"""

import json
import subprocess
import sys
from typing import Any, NamedTuple

from tools.lock import LOCK, ROOT

CLEAN, VULNERABLE, NO_DATA = 0, 1, 3
_SECONDS = 600


class Judged(NamedTuple):
    """What pip-audit's answer comes to: an exit code, and lines for people."""

    code: int
    told: list[str]


def judge(answer: dict[str, Any]) -> Judged:
    """Judge a document of `pip-audit --format json`.

    A package that pip-audit left out is no clean one, though pip-audit itself says "no known
    vulnerabilities" even where it could look up nothing at all.
    """
    packages = answer["dependencies"]
    left_out = [package["name"] for package in packages if "skip_reason" in package]
    told = []
    for package in packages:
        for found in package.get("vulns", ()):
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            names = ", ".join([found["id"], *found.get("aliases", ())])
            told.append(f"{package['name']} {package['version']}: {names}; mended in {mended}")
    if told:
        return Judged(VULNERABLE, told)
    if left_out or not packages:
        some = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        return Judged(
            NO_DATA,
            [f"no data on {len(left_out)} of {len(packages)} packages ({some}): nothing is said of them"],
        )
    return Judged(CLEAN, [f"nothing is known against the {len(packages)} packages of {LOCK}"])


def main() -> int:
    words = ["--requirement", LOCK, "--disable-pip", "--require-hashes", "--format", "json", "--desc", "off"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *words, "--progress-spinner", "off"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"audit: no answer within {_SECONDS} s: nothing is said of any package", file=sys.stderr)
        return NO_DATA
    try:
        judged = judge(json.loads(done.stdout))
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        judged = Judged(NO_DATA, [f"nobody to ask ({last}): nothing is said of any package"])
    for line in judged.told:
        print(f"audit: {line}", file=sys.stderr if judged.code else sys.stdout)
    return judged.code


if __name__ == "__main__":
    sys.exit(main())
