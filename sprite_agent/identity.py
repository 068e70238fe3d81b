"""The id of a sprite: made at the first start of an agent there, and kept in the repository.

It tells sprites apart, whatever their addresses. A copy of a sprite's disk has the same id, on purpose: two
agents that live under one id, with different boot ids, are how a clone is recognised.
"""

import logging
import os
import secrets
from contextlib import suppress

from sprite_agent.runtime.layout import agent_directory
from spritemesh import modes
from spritemesh.errors import OpsError
from spritemesh.ids import printable

MAX_SPRITE_ID_CHARS = 128
_NAME = "sprite-id"
_log = logging.getLogger("sprite_agent")


def validate_sprite_id(sprite_id: str, *, field: str = "--sprite-id") -> str:
    """Return `sprite_id` if it is 1 to 128 printable ASCII characters, none of them blank.

    Raises OpsError `invalid_request` otherwise.
    """
    if not 0 < len(sprite_id) <= MAX_SPRITE_ID_CHARS or not all("!" <= char <= "~" for char in sprite_id):
        raise OpsError(
            "invalid_request",
            f"{field} must be 1 to {MAX_SPRITE_ID_CHARS} printable ASCII characters without blanks,"
            f" not {printable(sprite_id)}",
            field=field,
        )
    return sprite_id


def kept_sprite_id(repo: str) -> str:
    """The id that the repository keeps, made now when there is none yet.

    "" when there can be none: a repository that cannot be written, or a file that holds no id. The log says
    why; the file is left as it is.
    """
    path = os.path.join(agent_directory(repo), _NAME)
    try:
        found = _read(path)
        if found is None:
            _make(path)
            found = _read(path)
    except OSError as error:
        _log.warning("the sprite has no id: %s: %s [state_unwritable]", path, error.strerror)
        return ""
    try:
        return validate_sprite_id(found or "", field=path)
    except OpsError as error:
        _log.warning("the sprite has no id: %s [artifact_invalid]", error.message)
        return ""


def _read(path: str) -> str | None:
    try:
        # A pipe in its place must not hold the agent's start.
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            return file.read(MAX_SPRITE_ID_CHARS + 2).decode("utf-8", "replace").removesuffix("\n")
    except FileNotFoundError:
        return None


def _make(path: str) -> None:
    """Keep a new id, whole or not at all, unless another agent was first. Raises OSError."""
    modes.make_directory(os.path.dirname(path))
    sprite_id = secrets.token_hex(16)
    # Of a name that nobody else has: agents of several machines may share a disk, and their process ids.
    temporary = f"{path}.{sprite_id}.tmp"
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(temporary, flags, modes.FILE), "wb") as file:
            file.write(sprite_id.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        # A rename would take the place of an id that somebody has been told of by now.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
