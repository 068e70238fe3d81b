"""JSON Schemas (draft 2020-12) of the v1 documents, as package data.

The two envelopes are exact: their own levels have these members and no others. The manager's documents
may grow members, but never lose or change one. The order of members is contract too, and is not
something that a schema can say.
"""

import os

from spritemesh import jsontext
from spritemesh.jsontext import JSON

_SUFFIX = ".v1.schema.json"
_DIRECTORY = os.path.dirname(os.path.abspath(__file__))

# The two envelopes on the way between sprite and manager, then the manager's documents.
SCHEMA_NAMES = (
    "loop_run_snapshot",
    "loop_run_event",
    "cursor",
    "state",
    "health",
    "heartbeat",
    "sequence_state",
    "transport_health",
    "profile_drift",
    "status",
)
# Documents in the same manner that v1 does not have.
LATER_NAMES = ("trace",)


def load_schema(name: str) -> dict[str, JSON]:
    """The schema of that name, freshly read. Raises KeyError for a name that is in neither list."""
    if name not in SCHEMA_NAMES + LATER_NAMES:
        raise KeyError(name)
    with open(os.path.join(_DIRECTORY, name + _SUFFIX), "rb") as file:
        schema: dict[str, JSON] = jsontext.parse(file.read())
    return schema
