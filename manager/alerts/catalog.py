"""Reading a catalog of alert sinks (contract I.1)."""

import os

from manager.core.alert_catalog import Catalog, check_catalog
from spritemesh import files
from spritemesh.errors import OpsError


def read_alert_catalog(path: str) -> Catalog:
    """The catalog in a file. Raises OpsError, naming the path: `document_missing`, `document_invalid` or
    `alert_catalog_invalid`."""
    if not os.path.isfile(path):
        raise OpsError("document_missing", f"alert catalog {path} does not exist")
    return check_catalog(files.read_json(path, what="alert catalog"), path)
