"""`ops-manager`, whole processes: a pass over 1,000 new events, and `--help`, beside an empty Python."""

import json
import os
import shutil
from itertools import islice

from bench import processes
from bench.fixtures import LOOP, Workplace, event_lines
from bench.measure import Figure, at_most, spread
from bench.processes import PYTHON, Usage, run_whole, script

_NEW_EVENTS = 1000
_MANAGER_FILES = os.path.join(".superloop", "ops-manager")


def run(place: Workplace) -> list[Figure]:
    turns = 9 if place.quick else 25
    repo = _prepare(place)
    manager = script("ops-manager")
    local = [manager, "reconcile", "--repo", repo, "--loop", LOOP]
    names = ("pass", "import grpc", "--help", "local", "grpc")
    found: dict[str, list[Usage]] = {name: [] for name in names}
    with processes.agent(repo) as agent:
        grpc = [
            *local,
            *("--transport", "sprite_service", "--service-base-url", f"grpc://{agent.target}"),
            *("--service-token", processes.TOKEN),
        ]
        commands = {
            "pass": [PYTHON, "-c", "pass"],
            "import grpc": [PYTHON, "-c", "import grpc"],
            "--help": [manager, "--help"],
            "local": local,
            "grpc": grpc,
        }
        for turn in range(turns + 1):
            for name, command in commands.items():
                usage = _pass(place, repo, command) if name in {"local", "grpc"} else run_whole(command)
                if turn:
                    found[name].append(usage)
    wall = {name: spread([usage.wall for usage in found[name]], "ms", scale=1e3) for name in names}
    cpu = spread([usage.cpu for usage in found["local"]], "ms", scale=1e3)
    grpc_cpu = spread([usage.cpu for usage in found["grpc"]], "ms", scale=1e3)
    empty = wall["pass"].median
    allowed = 8 * empty + wall["import grpc"].median - empty
    return [
        Figure("reconcile", "local, CPU", cpu.median, "ms", at_most(250), cpu),
        Figure(
            "reconcile",
            "local, wall / python -c pass",
            wall["local"].median / empty,
            "x",
            at_most(8),
            wall["local"],
            "python -c pass",
            wall["pass"],
        ),
        Figure("reconcile", "gRPC, CPU", grpc_cpu.median, "ms", None, grpc_cpu),
        Figure(
            "reconcile",
            "gRPC, wall / (8 pass + import grpc - pass)",
            wall["grpc"].median / allowed,
            "x",
            at_most(1),
            wall["grpc"],
            "python -c 'import grpc'",
            wall["import grpc"],
        ),
        Figure(
            "reconcile",
            "ops-manager --help",
            wall["--help"].median,
            "ms",
            at_most(80),
            wall["--help"],
            "python -c pass",
            wall["pass"],
        ),
    ]


def _prepare(place: Workplace) -> str:
    """A repository where one pass has been made, and 1,000 events have come since."""
    lines = list(islice(event_lines(), 2 * _NEW_EVENTS))
    log = os.path.join(place.path, "reconcile.jsonl")
    with open(log, "w", encoding="ascii") as file:
        file.writelines(lines[:_NEW_EVENTS])
    repo = place.repository("reconcile", {LOOP: log})
    run_whole([script("ops-manager"), "reconcile", "--repo", repo, "--loop", LOOP])
    os.rename(os.path.join(repo, _MANAGER_FILES), _kept(place))
    with open(log, "a", encoding="ascii") as file:
        file.writelines(lines[_NEW_EVENTS:])
    return repo


def _kept(place: Workplace) -> str:
    return os.path.join(place.path, "manager-files")


def _pass(place: Workplace, repo: str, command: list[str]) -> Usage:
    """One pass from the same state as every other; checked to have seen all new events."""
    files = os.path.join(repo, _MANAGER_FILES)
    shutil.rmtree(files, ignore_errors=True)
    shutil.copytree(_kept(place), files)
    usage = run_whole(command)
    with open(os.path.join(files, LOOP, "cursor.json"), "rb") as file:
        reached = json.load(file)["eventLineOffset"]
    if reached != 2 * _NEW_EVENTS:
        raise RuntimeError(f"the pass went to line {reached}, not {2 * _NEW_EVENTS}")
    return usage
