"""Builds the wheel, the same bytes from the same sources wherever and whenever it is built.

    python -m tools.wheel            dist/spritemesh-VERSION-py3-none-any.whl
    python -m tools.wheel --check    build twice, in unlike surroundings, and compare

The time in the archive is that of the last commit; without git it is one that never changes. So whoever has
the sources can build a released wheel again and compare it with the one that he was given.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
# All that goes into a wheel, or says what does.
SOURCES = (
    ".gitignore",
    "LICENSE",
    "README.md",
    "gen",
    "manager",
    "pyproject.toml",
    "spritemesh",
    "sprite_agent",
)
# 2020-02-02, what the build backend takes of itself.
_NO_COMMIT = 1580601600
# Two machines that have nothing in common but the sources. The umask is that of who unpacked and builds.
_SURROUNDINGS = (
    ("a", 0o022, {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1"}),
    ("another/and/deeper", 0o077, {"TZ": "Asia/Kathmandu", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2"}),
)


def commit_time() -> int:
    """When the last commit was made, seconds since 1970; SOURCE_DATE_EPOCH, where it is set, counts more."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given.isdecimal():
        return int(given)
    command = ["git", "log", "-1", "--format=%ct"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return _NO_COMMIT
    return int(done.stdout) if done.stdout.strip() else _NO_COMMIT


def build(sources: Path, to: Path, *, umask: int = -1, variables: dict[str, str] | None = None) -> Path:
    """Build from a tree; the wheel. umask: of the build; -1: this process's.

    Raises subprocess.CalledProcessError, which holds what the backend said.
    """
    to.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(to)],
        cwd=sources,
        env=os.environ | {"SOURCE_DATE_EPOCH": str(commit_time())} | (variables or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=umask,
        check=True,
    )
    (wheel,) = to.glob("*.whl")
    return wheel


def copy(to: Path, umask: int) -> None:
    """Unpack the sources as somebody with this umask would."""
    before = os.umask(umask)
    try:
        to.mkdir(parents=True)
        for name in SOURCES:
            if (ROOT / name).is_dir():
                leave = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, to / name, ignore=leave, copy_function=shutil.copyfile)
            else:
                shutil.copyfile(ROOT / name, to / name)
        for path in (to, *(path for path in to.rglob("*") if path.is_dir())):
            path.chmod(0o777 & ~umask)
    finally:
        os.umask(before)


def built_twice(directory: Path) -> list[Path]:
    """Two wheels of two copies of the sources, in unlike surroundings."""
    wheels = []
    for name, umask, variables in _SURROUNDINGS:
        tree = directory / name / "tree"
        copy(tree, umask)
        wheels.append(build(tree, directory / name / "built", umask=umask, variables=variables))
    return wheels


def digest(wheel: Path) -> str:
    return sha256(wheel.read_bytes()).hexdigest()


def main() -> int:
    """Exit code 1 when two builds differ, or there is none."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheel", description="Build the wheel.")
    parser.add_argument("--check", action="store_true", help="build twice, and compare; leaves no wheel")
    options = parser.parse_args()
    try:
        if not options.check:
            with tempfile.TemporaryDirectory(prefix="spritemesh-wheel-") as scratch:
                built = build(ROOT, Path(scratch))
                DIST.mkdir(exist_ok=True)
                shutil.copyfile(built, DIST / built.name)
                print(f"wheel: dist/{built.name} sha256:{digest(built)}")
            return 0
        with tempfile.TemporaryDirectory(prefix="spritemesh-wheel-") as scratch:
            first, second = built_twice(Path(scratch))
            if first.name != second.name or digest(first) != digest(second):
                print(f"wheel: two builds differ: {digest(first)}, {digest(second)}", file=sys.stderr)
                return 1
            print(f"wheel: two builds of {first.name} are the same bytes: sha256:{digest(first)}")
    except subprocess.CalledProcessError as error:
        print(f"{error.stdout}wheel: the build failed with exit code {error.returncode}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
