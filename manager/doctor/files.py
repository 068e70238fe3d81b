"""The manager's own side: registry, catalog of alerts, files, disk, and whether a manager runs here."""

import asyncio
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from manager.alerts.catalog import read_alert_catalog
from manager.core.alert_catalog import missing_variables
from manager.core.registry import Registry
from manager.fleet.client import read_fleet
from manager.fleet.presence import endpoint_at, find, fleet_directory
from sprite_agent.probe.disk import check_room, check_secrets, check_writable, exposed, told_files
from sprite_agent.probe.steps import Found, Steps, skip, warn, well
from sprite_agent.runtime.layout import ops_directory
from spritemesh.endpoints import Trust
from spritemesh.errors import OpsError
from spritemesh.names import LISTEN_TOKEN_VARIABLE
from spritemesh.reasons import Fault

if TYPE_CHECKING:
    from spritemesh.signer import Signer

# Why a manager that answers does not tell its fleet to whom it does not know.
_ANSWERS = frozenset({Fault.CREDENTIALS, Fault.FORBIDDEN, Fault.LIMIT})


class Proof(NamedTuple):
    """What the flags give to whoever asks a running manager. None: nothing."""

    trust: Trust | None = None
    signer: "Signer | None" = None


def examine_files(steps: Steps, repo: str, loop_ids: Iterable[str], secrets: Iterable[str]) -> None:
    """Steps over the files of these loops. secrets: paths of files with keys."""
    ids, paths = list(loop_ids), list(secrets)
    root = os.path.dirname(fleet_directory(repo))
    steps.take("permissions", lambda: _check_files(repo, root, ids))
    steps.take("secrets", lambda: check_secrets(paths))
    steps.take("disk", lambda: check_room(root))


def examine_fleet(steps: Steps, repo: str, registry: Registry, path: str, catalog: str, proof: Proof) -> None:
    """Steps over what a fleet's manager needs. path, catalog: of the registry and the catalog of alerts.
    proof: for the manager that runs."""
    steps.take("registry", lambda: _told_registry(registry, path))
    steps.take("alerts", lambda: _check_catalog(catalog, os.environ))
    steps.take("manager", lambda: _ask_manager(repo, proof, os.environ))


def _check_files(repo: str, root: str, loop_ids: Iterable[str]) -> Found:
    """root: directory of all the manager's files."""
    check_writable(root)
    directories = dict.fromkeys(
        [*(ops_directory(repo, loop_id) for loop_id in loop_ids), fleet_directory(repo)]
    )
    used = [directory for directory in directories if os.path.isdir(directory)]
    found: list[str] = []
    for directory in used:
        for place in (directory, os.path.join(directory, "telemetry")):
            if os.path.isdir(place):
                check_writable(place)
                found += exposed(place)
    if found:
        return warn("file_exposed", told_files("other users may read or write", found))
    return well(f"{root} can be written; loops and fleets with files: {len(used)}, none open to others")


def _told_registry(registry: Registry, path: str) -> Found:
    enabled = sum(entry.enabled for entry in registry.loops)
    return well(f"{path}: fleet {registry.fleet_id}, loops: {len(registry.loops)}, enabled: {enabled}")


def _check_catalog(path: str, environment: Mapping[str, str]) -> Found:
    catalog = read_alert_catalog(path)
    enabled = sum(sink.enabled for sink in catalog.sinks.values())
    missing = missing_variables(catalog, dict(environment))
    told = f"{path}: sinks: {len(catalog.sinks)}, enabled: {enabled}"
    if missing:
        return warn("missing_secret", f"{told}; not set here: {' '.join(missing)}")
    return well(told)


def _ask_manager(repo: str, proof: Proof, environment: Mapping[str, str]) -> Found:
    """Whether a manager runs the fleet, and answers."""
    try:
        address = find(repo)
    except OpsError as error:
        if error.reason != "fleet_not_running":
            raise
        return skip(error.message)
    token = environment.get(LISTEN_TOKEN_VARIABLE, "").strip()
    try:
        endpoint = endpoint_at(address, token, field="--repo", trust=proof.trust, signer=proof.signer)
        fleet = asyncio.run(read_fleet(endpoint))
    except OpsError as error:
        if error.row.fault in _ANSWERS:
            return well(f"one answers at {address}, and wants to know who asks ({error.reason})")
        raise OpsError(
            error.reason, f"one holds the fleet, but does not answer at {address}: {error.message}"
        ) from error
    return well(f"one answers at {address}: loops: {len(fleet.views)}")
