"""The fleet's registry as a file: where it is, what it says, whether it changed, and the way to each loop."""

import os
from collections.abc import Mapping

from manager.core.registry import Entry, Registry, parse_registry
from manager.fleet.presence import fleet_directory
from manager.transport import Endpoint, parse_base_url
from sprite_agent.runtime.statefiles import StateFiles
from spritemesh import files, jsontext
from spritemesh.endpoints import check_token
from spritemesh.errors import OpsError
from spritemesh.names import SERVICE_TOKEN_VARIABLE
from spritemesh.signer import signer_of


def registry_path(repo: str) -> str:
    """Where a repository keeps the registry of its fleet (contract K). repo: absolute."""
    return os.path.join(fleet_directory(repo), "registry.v1.json")


def read_registry(path: str) -> Registry:
    """The registry in a file.

    Raises OpsError `registry_missing`, or `registry_invalid` for the first fault: both name the file.
    """
    try:
        data = files.read_bytes(path)
        if data is None:
            raise OpsError("registry_missing", f"there is no fleet registry {path}", field="--registry")
        registry = parse_registry(jsontext.parse(data, max_depth=jsontext.MAX_DOCUMENT_DEPTH))
        return _located(registry, os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
    except jsontext.JSONError as error:
        problem = f"is not valid JSON: {error}"
    except OpsError as error:
        if error.reason != "registry_invalid":
            raise
        problem = error.message
    raise OpsError("registry_invalid", f"fleet registry {path}: {problem}", field="--registry")


def _located(registry: Registry, directory: str) -> Registry:
    """The registry with paths of certificates beside its own file made absolute."""

    def located(path: str) -> str:
        return os.path.join(directory, path) if path else ""

    loops = []
    for entry in registry.loops:
        trust = entry.trust
        if trust is not None:
            trust = trust._replace(ca=located(trust.ca), cert=located(trust.cert), key=located(trust.key))
        loops.append(entry._replace(trust=trust))
    return registry._replace(loops=tuple(loops))


def check(registry: Registry, environment: Mapping[str, str]) -> None:
    """Refuse what no session could begin with: an address that is none, a token that is not there.

    Of a loop that is disabled, nobody needs the token. Raises OpsError as endpoint_of, for the first entry
    with a fault.
    """
    for entry in registry.loops:
        if entry.enabled:
            endpoint_of(entry, environment)
        else:
            _endpoint(entry, "")


def endpoint_of(entry: Entry, environment: Mapping[str, str]) -> Endpoint | None:
    """Where the loop's agent or service is, and the token for it; None for a local loop.

    The token is that of the variable which the entry names; of an entry that names none, it is that of
    OPS_MANAGER_SERVICE_TOKEN, as for commands, if there is one. Raises OpsError `missing_service_token_env`
    for a variable that is unset or empty, `registry_invalid` for an address, a token or a file of keys that
    cannot be used; both name the entry, and neither tells a secret.
    """
    if not entry.base_url:
        return None
    variable = entry.token_env or SERVICE_TOKEN_VARIABLE
    # White space around it is no part of it: a variable often ends in a newline.
    token = environment.get(variable, "").strip()
    if entry.token_env and not token:
        raise OpsError(
            "missing_service_token_env",
            f"{entry.shown}: service.tokenEnv names {variable}, which is not set or empty",
            field="service.tokenEnv",
        )
    try:
        check_token(token, variable)
    except OpsError as error:
        raise _retold(entry, "service.tokenEnv", error) from error
    endpoint = _endpoint(entry, token)
    if endpoint is None or not entry.signing_key_file:
        return endpoint
    try:
        return endpoint._replace(signer=signer_of(entry.signing_key_file, "service.signingKeyFile"))
    except OpsError as error:
        raise _retold(entry, "service.signingKeyFile", error) from error


def _endpoint(entry: Entry, token: str) -> Endpoint | None:
    if not entry.base_url:
        return None
    try:
        return parse_base_url(entry.base_url, token, "service.baseUrl", entry.trust)
    except OpsError as error:
        raise _retold(entry, "service.baseUrl", error) from error


def _retold(entry: Entry, member: str, error: OpsError) -> OpsError:
    return OpsError("registry_invalid", f"{entry.shown}: {error.message}", field=member)


class RegistryWatch:
    """Whether a file was changed, replaced or removed, at the cost of one stat a look.

    It looks at the path and not at a directory, so that a file behind a link is seen to change, as that of a
    mounted ConfigMap is. Make it before the file is read first: then no change falls between.
    """

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._files = StateFiles("/")
        self._seen = self._files.signature(self._path)

    def changed(self) -> bool:
        """Whether it changed since the last call. Of a file that was written this moment it is said twice."""
        seen, self._seen = self._seen, self._files.signature(self._path)
        return seen != self._seen
