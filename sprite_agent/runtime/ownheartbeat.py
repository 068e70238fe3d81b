"""heartbeat.v1.json when it is the agent's own: how it is told from a runtime's.

The agent renews the file every few seconds, and says the same on WatchHeartbeats. To those who follow a loop
it is no news; a heartbeat that the runtime itself wrote is.
"""

import os
import stat

from sprite_agent.runtime.statefiles import StateFiles
from spritemesh.heartbeat import bears_mark
from superloop.ops.v1 import envelope_pb2 as pb

# Ours takes a few hundred bytes.
_MAX_BYTES = 65536


class HeartbeatNews:
    """What changes with a heartbeat file, unless it is the agent's own: that one is as no file at all.

    A stat signature cannot tell who wrote the file, but that it is the one looked into before: the file is
    read once for each signature.
    """

    def __init__(self, files: StateFiles, repo: str, relative: str) -> None:
        self._files = files
        self._relative = relative
        self._path = os.path.join(repo, relative)
        self._seen: tuple[object, object] = (None, None)  # signature, news

    def signature(self) -> object:
        """Another one means news; costs a stat while the file does not change."""
        found = self._files.signature(self._relative)
        if found != self._seen[0]:
            self._seen = (found, None if is_own(self._path) else found)
        return self._seen[1]


def is_own(path: str) -> bool:
    """Whether there is a regular file that bears our mark. What cannot be read is not ours."""
    try:
        # A pipe would hold the reader for ever, and a link is somebody's arrangement.
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return bears_mark(file.read(_MAX_BYTES))
    except OSError:
        return False


def without_own(snapshot: pb.LoopRunSnapshot) -> pb.LoopRunSnapshot:
    """A copy in which a heartbeat of the agent's own is as none."""
    copy = pb.LoopRunSnapshot()
    copy.CopyFrom(snapshot)
    if copy.runtime.HasField("heartbeat") and bears_mark(copy.runtime.heartbeat.json):
        copy.runtime.ClearField("heartbeat")
        copy.artifacts.heartbeat.CopyFrom(pb.ArtifactRef(path=snapshot.artifacts.heartbeat.path))
    return copy
