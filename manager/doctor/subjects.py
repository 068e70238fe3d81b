"""What is looked at: one address, a fleet, or a local repository, in works that bring their steps."""

import os
from collections.abc import Callable, Sequence
from functools import partial

from manager.core.registry import Entry, Registry
from manager.doctor.agents import examine
from manager.doctor.files import Proof, examine_files, examine_fleet
from manager.fleet.registry import endpoint_of, read_registry, registry_path
from manager.store.traces import known_loops
from manager.transport.base import Endpoint
from sprite_agent.probe.steps import Found, Step, Steps
from sprite_agent.selfcheck.repository import Repository
from spritemesh.errors import OpsError

Work = Callable[[], list[Step]]
# All steps of a subject on this host together have as long as so many of them.
_STEPS_OF_TIME = 4


def of_address(endpoint: Endpoint, repo: str, loop_id: str, *, seconds: float) -> list[Work]:
    """One agent or service, and the manager's files of its loop. repo "": there are none."""
    works: list[Work] = [partial(examine, endpoint, loop_id, seconds=seconds)]
    if repo:
        works.append(partial(_files, repo, [loop_id] if loop_id else [], _secrets(endpoint), seconds))
    return works


def of_repository(
    repo: str, registry: str, loop_id: str, *, catalog: str, proof: Proof, seconds: float
) -> list[Work]:
    """The enabled loops of a repository's registry, and the fleet's files; without one, its local loops.

    registry: path, "" for the usual one. loop_id "": all. catalog: of alerts. proof: for a manager that runs.
    Raises OpsError
    `loop_not_found` for a loop that the registry does not have.
    """
    path = registry or registry_path(repo)
    if not registry and not os.path.lexists(path):
        loops = [loop_id] if loop_id else sorted(known_loops(repo))
        return [partial(_local, repo, loop_id, repo, seconds), partial(_files, repo, loops, [], seconds)]
    try:
        found = read_registry(path)
    except OpsError as error:
        return [partial(_failed, f"fleet of {repo}", "registry", error, seconds)]
    entries = [entry for entry in found.loops if entry.enabled and loop_id in ("", entry.loop_id)]
    if loop_id and not entries:
        raise OpsError("loop_not_found", f"{path} has no enabled loop {loop_id}", field="--loop")
    works: list[Work] = [partial(_fleet, repo, found, path, entries, catalog, proof, seconds)]
    return works + [partial(_entry, repo, entry, seconds) for entry in entries]


def _fleet(
    repo: str,
    registry: Registry,
    path: str,
    entries: Sequence[Entry],
    catalog: str,
    proof: Proof,
    seconds: float,
) -> list[Step]:
    """What all loops of a fleet share."""
    steps = _steps(f"fleet of {repo}", seconds)
    examine_fleet(steps, repo, registry, path, catalog, proof)
    secrets: dict[str, None] = {}
    for entry in entries:
        try:
            secrets |= dict.fromkeys(_secrets(endpoint_of(entry, os.environ)))
        except OpsError:
            continue  # told where the loop is
        secrets[entry.signing_key_file] = None
    examine_files(steps, repo, [entry.loop_id for entry in entries], secrets)
    return steps.found


def _entry(repo: str, entry: Entry, seconds: float) -> list[Step]:
    """One loop of a fleet."""
    subject = f"loop {entry.loop_id}, {entry.base_url or 'local'}"
    try:
        endpoint = endpoint_of(entry, os.environ)
    except OpsError as error:
        return _failed(subject, "entry", error, seconds)
    if endpoint is None:
        return _local(repo, entry.loop_id, subject, seconds)
    return examine(endpoint, entry.loop_id, seconds=seconds, subject=subject)


def _local(repo: str, loop_id: str, subject: str, seconds: float) -> list[Step]:
    """Loops whose files are here, read as an agent would. loop_id "": all of them."""
    steps = _steps(subject, seconds)
    Repository(repo, steps, loop_id=loop_id).run()
    return steps.found


def _files(repo: str, loop_ids: Sequence[str], secrets: Sequence[str], seconds: float) -> list[Step]:
    steps = _steps(f"manager's files in {repo}", seconds)
    examine_files(steps, repo, loop_ids, secrets)
    return steps.found


def _failed(subject: str, step: str, error: OpsError, seconds: float) -> list[Step]:
    """A subject that cannot be looked at."""
    steps = _steps(subject, seconds)

    def fail() -> Found:
        raise error

    steps.take(step, fail)
    return steps.found


def _steps(subject: str, seconds: float) -> Steps:
    return Steps(subject, seconds=seconds, whole=_STEPS_OF_TIME * seconds)


def _secrets(endpoint: Endpoint | None) -> list[str]:
    """Paths of files with private keys of TLS."""
    return [endpoint.trust.key] if endpoint is not None and endpoint.trust is not None else []
