"""Has promtool check deploy/prometheus and the queries of the dashboard.

    python -m tools.deploy_check

promtool must be on PATH: Debian has it in the package `prometheus`. The scrape configurations name a token
file that only a real installation has, so a copy with one is checked.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.dashboard import expressions

ROOT = Path(__file__).resolve().parent.parent
RULES = ROOT / "deploy/prometheus"
# What Grafana would put in.
_VARIABLES = {"$__rate_interval": "1m"}


def promtool() -> str | None:
    """Where promtool is; None: it is not installed."""
    return shutil.which("promtool")


def plain(query: str) -> str:
    """A query of the dashboard as Prometheus gets it, with every choice left open."""
    for name, value in _VARIABLES.items():
        query = query.replace(name, value)
    return re.sub(r"\$\w+", ".*", query)


def failures(program: str) -> list[str]:
    """What promtool says against the configurations, the rules, their tests, and the dashboard's queries."""
    with tempfile.TemporaryDirectory(prefix="spritemesh-rules-") as name:
        directory = Path(name)
        shutil.copytree(RULES, directory, dirs_exist_ok=True)
        (directory / "spritemesh.token").write_text("token\n", encoding="utf-8")
        records = [
            {"record": f"dashboard:{number}", "expr": plain(query)}
            for number, query in enumerate(expressions())
        ]
        queries = {"groups": [{"name": "dashboard", "rules": records}]}
        # JSON is YAML.
        (directory / "queries.yml").write_text(json.dumps(queries), encoding="utf-8")
        steps = (
            ("check", "config", "prometheus.yml", "prometheus-kubernetes.yml"),
            ("test", "rules", "rules_test.yml"),
            ("check", "rules", "queries.yml"),
        )
        told = []
        for words in steps:
            done = subprocess.run(
                [program, *words], cwd=directory, capture_output=True, text=True, timeout=60, check=False
            )
            if done.returncode:
                told.append(f"promtool {' '.join(words)}:\n{done.stdout}{done.stderr}".rstrip())
        return told


def main() -> int:
    """Exit code 1 when something is wrong, or there is no promtool."""
    program = promtool()
    if program is None:
        sys.stderr.write("promtool is not on PATH; Debian has it in the package `prometheus`\n")
        return 1
    told = failures(program)
    for text in told:
        sys.stderr.write(f"{text}\n")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
