"""The manager's files of one loop: where they are, how they are read, how they are replaced."""

from manager.store.loop import LoopStore
from manager.store.paths import LoopFiles, loop_files

__all__ = ["LoopFiles", "LoopStore", "loop_files"]
