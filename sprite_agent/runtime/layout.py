"""Where the runtime keeps what (contract 0.6 and A). No other module spells these paths."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from spritemesh.errors import OpsError
from spritemesh.ids import printable, validate_loop_id

RUNTIME_ROOT = ".superloop"
_LOOPS = os.path.join(RUNTIME_ROOT, "loops")
# The name that the tracer gives its file unless it is told another one.
_TRACES = "trace.jsonl"


class LoopPaths(NamedTuple):
    """Paths of one loop's artifacts, relative to the repository, as v1 documents show them."""

    directory: str
    events: str
    run_summary: str
    approval: str
    heartbeat: str
    state: str
    active_run: str
    traces: str


def loop_paths(loop_id: str) -> LoopPaths:
    """The paths of a loop; the id is validated first. Raises OpsError `invalid_loop_id`."""
    directory = os.path.join(_LOOPS, validate_loop_id(loop_id))
    return LoopPaths(
        directory=directory,
        events=os.path.join(directory, "events.jsonl"),
        run_summary=os.path.join(directory, "run-summary.json"),
        approval=os.path.join(directory, "approval.json"),
        heartbeat=os.path.join(directory, "heartbeat.v1.json"),
        state=os.path.join(RUNTIME_ROOT, "state.json"),
        active_run=os.path.join(RUNTIME_ROOT, "active-run.json"),
        traces=os.path.join(directory, _TRACES),
    )


def trace_files(repo: str, loop_id: str = "", named: Iterable[str] = ()) -> tuple[str, ...]:
    """The files to which the runtime's tracer may write: of the whole repository, of the loop if there is an
    id, and those that somebody named, each once. Relative to the repository where they are in it.

    Nothing is looked at on disk: links stay, as in all paths here. Raises OpsError `invalid_loop_id`.
    """
    found = [_TRACES, os.path.join(RUNTIME_ROOT, _TRACES)]
    if loop_id:
        found.append(loop_paths(loop_id).traces)
    for path in named:
        absolute = os.path.normpath(os.path.join(repo, path))
        is_inside = absolute.startswith(repo.rstrip("/") + "/")
        found.append(os.path.relpath(absolute, repo) if is_inside else absolute)
    return tuple(dict.fromkeys(found))


def ops_directory(repo: str, loop_id: str) -> str:
    """The manager directory of a loop (contract 0.6). Raises OpsError `invalid_loop_id`."""
    return os.path.join(repo, RUNTIME_ROOT, "ops-manager", validate_loop_id(loop_id))


def agent_directory(repo: str) -> str:
    """Where an agent keeps what is its own: the ledger of control and its locks."""
    return os.path.join(repo, RUNTIME_ROOT, "sprite-agent")


def resolve_repo(path: str) -> str:
    """The absolute logical path of directory `path`: symbolic links stay (contract 0.6).

    Raises OpsError `repo_not_found`, which names the path.
    """
    absolute = os.path.normpath(os.path.join(_logical_directory(), path))
    if "\0" in path or not os.path.isdir(absolute):
        raise OpsError(
            "repo_not_found", f"repository {printable(path, 4096)} is no directory", field="--repo"
        )
    return absolute


def list_loop_ids(repo: str) -> list[str]:
    """Ids of all loops that have a directory, sorted; none when the runtime never ran here.

    A name that is no UTF-8 is left out: no message could hold it, and no call could ask for it.
    """
    try:
        with os.scandir(os.path.join(repo, _LOOPS)) as found:
            entries = [entry.name for entry in found if entry.is_dir()]
    except OSError:
        return []
    return sorted(name for name in entries if not any("\ud800" <= char <= "\udfff" for char in name))


def _logical_directory() -> str:
    """The working directory as the shell names it, when that is true; links in it stay then."""
    named = os.environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
    except OSError:
        pass
    return os.getcwd()
