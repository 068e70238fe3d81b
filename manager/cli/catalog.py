"""Which catalogs a command uses, of threshold profiles and of alert sinks (contract H.1, I.1)."""

import os

from manager import catalogs
from spritemesh import files
from spritemesh.errors import OpsError
from spritemesh.jsontext import JSON

VARIABLE = "OPS_MANAGER_THRESHOLD_PROFILES_FILE"
ALERT_SINKS_VARIABLE = "OPS_MANAGER_ALERT_SINKS_FILE"


def read_catalog(given: str | None) -> tuple[JSON, str]:
    """The catalog and its path: of the flag `given`, else of the environment, else the built-in one.

    Raises OpsError, naming the path: `document_missing`, or `document_invalid` when it is no JSON.
    """
    path = given or os.environ.get(VARIABLE) or catalogs.THRESHOLD_PROFILES
    if not os.path.isfile(path):
        raise OpsError("document_missing", f"threshold catalog {path} does not exist")
    return files.read_json(path, what="threshold catalog"), path


def alert_catalog_path(given: str | None) -> str:
    """The path of the flag `given`, else of the environment, else of the built-in catalog of sinks."""
    return given or os.environ.get(ALERT_SINKS_VARIABLE) or catalogs.ALERT_SINKS
