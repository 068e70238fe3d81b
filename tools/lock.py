"""Rewrite requirements.lock: every package that an install needs, pinned, with the hashes of all its files.

    python -m tools.lock              keep pins that still fit pyproject.toml
    python -m tools.lock --upgrade    take the newest of everything

Needs the lowest supported Python, so that the set also holds what only that one needs; newer ones ignore the
surplus. Hashes cover every platform, not only this one.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = "requirements.lock"
LOWEST = (3, 11)
PIP_TOOLS = "pip-tools==7.6.2"

# The lock says what is installed, never from where: that is each machine's own configuration.
OPTION_OR_URL = re.compile(r"^\s*--(?!hash=)|://", re.MULTILINE)


def environment() -> dict[str, str]:
    """This process's environment without extra package sources, which could pin what others cannot fetch."""
    dropped = {"PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.lock", description=f"Rewrite {LOCK}.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest version of everything")
    options = parser.parse_args()
    if sys.version_info[:2] != LOWEST:
        print(f"lock: run with Python {'.'.join(map(str, LOWEST))}, the lowest supported", file=sys.stderr)
        return 1

    with tempfile.TemporaryDirectory(prefix="spritemesh-lock-") as scratch:
        venv.create(scratch, with_pip=True)
        python = f"{scratch}/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", PIP_TOOLS], env=environment(), check=True)
        command = [
            python,
            "-m",
            "piptools",
            "compile",
            "--quiet",
            "--extra=dev",
            "--generate-hashes",
            "--allow-unsafe",  # setuptools is a runtime need of grpcio-tools, so it is pinned like the rest
            "--strip-extras",
            "--no-header",
            "--no-annotate",
            "--no-emit-index-url",
            "--no-emit-find-links",
            "--no-emit-trusted-host",
            "--no-emit-options",
            f"--output-file={LOCK}",
            *(["--upgrade"] if options.upgrade else []),
            "pyproject.toml",
        ]
        subprocess.run(command, cwd=ROOT, env=environment(), check=True)

    text = (ROOT / LOCK).read_text("utf-8")
    if found := OPTION_OR_URL.search(text):
        print(f"lock: {LOCK} must name no package source, but holds {found.group()!r}", file=sys.stderr)
        return 1
    print(f"lock: {len(re.findall('^[a-z0-9]', text, re.MULTILINE))} packages in {LOCK}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
