"""v1 JSON to protobuf messages and back.

Losslessly for every document of the shapes in contract B.3 and C.3: the same keys in the same order,
null apart from absent inside runtime JSON, integers of any size, 1 apart from 1.0, every escape.
"""

from spritemesh.bridge.events import event_documents, event_from_json, event_to_json
from spritemesh.bridge.snapshot import snapshot_from_json, snapshot_to_json

__all__ = [
    "event_documents",
    "event_from_json",
    "event_to_json",
    "snapshot_from_json",
    "snapshot_to_json",
]
