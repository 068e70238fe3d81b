"""That a manager runs a fleet, and where it answers: the lock of the fleet's directory, and manager.json.

The lock says whether; it dies with its process. The file says where, and may outlive a manager that was
killed: it counts only while the lock is held.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from manager.core.registry import FLEET_DIRECTORY
from manager.transport.base import Endpoint, parse_base_url
from sprite_agent.runtime.layout import ops_directory
from sprite_agent.security import parse_address
from spritemesh import files, jsontext
from spritemesh.endpoints import Trust
from spritemesh.errors import OpsError
from spritemesh.times import format_utc

if TYPE_CHECKING:
    from spritemesh.signer import Signer

# Who looks whether a manager runs holds the lock for an instant: one that starts then must not give up.
_LOCK_WAIT_SECONDS = 0.5


def fleet_directory(repo: str) -> str:
    """Where the fleet of a repository keeps its files. repo: absolute."""
    return ops_directory(repo, FLEET_DIRECTORY)


@contextmanager
def hold(repo: str) -> Iterator[None]:
    """Be the one manager of a repository's fleet for the length of the block.

    Raises OpsError `fleet_running` when another is, and `state_unwritable`.
    """
    with _locked(repo, wait_seconds=_LOCK_WAIT_SECONDS):
        withdraw(repo)  # of one that was killed
        yield


def announce(repo: str, *, fleet_id: str, started_at: float, listen: str | None, metrics: str | None) -> None:
    """Say where this manager, which holds the fleet, answers.

    started_at: epoch seconds. listen, metrics: addresses with real ports, grpcs:// before that of `listen`
    where clients need TLS; None: nowhere. Raises OpsError `state_unwritable`.
    """
    document = {
        "schemaVersion": "v1",
        "fleetId": fleet_id,
        "pid": os.getpid(),
        "startedAt": format_utc(started_at),
        "listen": listen,
        "metrics": metrics,
    }
    files.write_atomic(_path(repo), jsontext.encode(document) + b"\n")


def withdraw(repo: str) -> None:
    """Say no more that a manager answers."""
    with suppress(OSError):
        os.unlink(_path(repo))


def find(repo: str) -> str:
    """The address at which the manager of a repository's fleet answers, as `announce` was told it.

    Raises OpsError `fleet_not_running` when none runs, or it listens nowhere; `document_invalid`.
    """
    document = files.read_object(_path(repo), what="manager file")
    address = (document or {}).get("listen")
    if document is None or not _is_held(repo):
        raise OpsError("fleet_not_running", f"no manager runs the fleet of {repo}")
    if not isinstance(address, str) or not address:
        raise OpsError(
            "fleet_not_running", f"the manager of the fleet of {repo} was started without --listen"
        )
    return address


def endpoint_at(
    address: str, token: str, *, field: str, trust: Trust | None, signer: "Signer | None"
) -> Endpoint:
    """The manager at an address as `find` or a flag tells it. field: the flag. trust None: where the address
    asks for TLS, the authorities of the system. Raises OpsError `invalid_request`."""
    if trust is not None or address.startswith(("grpc://", "grpcs://")):
        return parse_base_url(address, token, field, trust)._replace(signer=signer)
    return Endpoint(parse_address(address, field=field).target, token, signer)


def _is_held(repo: str) -> bool:
    try:
        with _locked(repo, wait_seconds=0):
            return False
    except OpsError as error:
        if error.reason == "fleet_running":
            return True
        raise


@contextmanager
def _locked(repo: str, *, wait_seconds: float) -> Iterator[None]:
    with ExitStack() as held:
        try:
            held.enter_context(files.locked_directory(fleet_directory(repo), wait_seconds=wait_seconds))
        except OpsError as error:
            if error.reason != "state_locked":
                raise
            raise OpsError("fleet_running", f"another manager runs the fleet of {repo}") from error
        yield


def _path(repo: str) -> str:
    return os.path.join(fleet_directory(repo), "manager.json")
