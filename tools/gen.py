"""Write gen/ from proto/, or prove that it is current.

    python -m tools.gen            rewrite gen/: new and changed files written, stale ones removed
    python -m tools.gen --check    change nothing; exit 1 and name the files if gen/ differs

The generators run into a scratch directory first. If one fails, gen/ is as it was.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
GEN = ROOT / "gen"

# What each generated package holds besides the generators' output. A regular package imports faster than
# a namespace one, and tools that walk packages (wheel, import-linter) need no special case for it.
PACKAGE_INIT = '"""Generated from proto/ by `make gen`. DO NOT EDIT!"""\n'


def generate(out: Path) -> None:
    """Run every generator over every .proto file, into the empty directory `out`."""
    import grpc_tools

    protos = sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))
    if not protos:
        raise SystemExit(f"gen: no .proto files under {PROTO}")
    scripts = Path(sysconfig.get_path("scripts"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTO}",
        f"--proto_path={well_known}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--grpc_python_out={out}",
        f"--mypy_out=quiet:{out}",
        f"--mypy_grpc_out=quiet:{out}",
        *protos,
    ]
    if code := subprocess.run(command, check=False).returncode:
        raise SystemExit(f"gen: protoc failed with exit code {code}; gen/ is unchanged")

    with_services = {proto for proto in protos if "\nservice " in (PROTO / proto).read_text("utf-8")}
    for proto in set(protos) - with_services:
        for suffix in ("_pb2_grpc.py", "_pb2_grpc.pyi"):
            (out / (proto.removesuffix(".proto") + suffix)).unlink(missing_ok=True)
    for top in {Path(proto).parts[0] for proto in protos}:
        (out / top / "py.typed").touch()
        for folder in [out / top, *(path for path in (out / top).rglob("*") if path.is_dir())]:
            (folder / "__init__.py").write_text(PACKAGE_INIT, "utf-8")


def contents(root: Path) -> dict[str, bytes]:
    """Every file under `root` by relative path, without what Python caches there."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def differences(wanted: dict[str, bytes], found: dict[str, bytes]) -> list[str]:
    """One line a file that differs, in path order."""
    lines = []
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            lines.append(f"missing  gen/{name}")
        elif name not in wanted:
            lines.append(f"stale    gen/{name}")
        elif wanted[name] != found[name]:
            lines.append(f"differs  gen/{name}")
    return lines


def install(wanted: dict[str, bytes], found: dict[str, bytes]) -> None:
    """Make gen/ hold exactly `wanted`: each file replaced whole, unchanged ones not touched."""
    for name, data in wanted.items():
        if found.get(name) != data:
            target = GEN / name
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch = target.with_name(f".{target.name}.new")
            scratch.write_bytes(data)
            scratch.replace(target)
    for name in found.keys() - wanted.keys():
        (GEN / name).unlink()
    for folder, _, _ in os.walk(GEN, topdown=False):
        if not contents(Path(folder)) and Path(folder) != GEN:
            shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gen", description="Write gen/ from proto/.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if gen/ is not current")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="spritemesh-gen-") as scratch:
        generate(Path(scratch))
        wanted = contents(Path(scratch))
    found = contents(GEN)
    lines = differences(wanted, found)
    if not options.check:
        install(wanted, found)
        print(f"gen: {len(wanted)} files, {len(lines)} changed")
        return 0
    if lines:
        lines.insert(0, "gen: gen/ is not what proto/ generates; run `make gen` and commit the result")
        print("\n  ".join(lines), file=sys.stderr)
        return 1
    print(f"gen: {len(wanted)} files are current")
    return 0


if __name__ == "__main__":
    sys.exit(main())
