"""An agent that tells what cannot be, or nothing: its own loop says so, and no other one is the worse for it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from manager.fleet import session
from spritemesh.times import format_utc
from superloop.ops.v1 import manager_pb2 as pb
from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness.live_fleet import UP, Fleet, entry, recent
from tests.harness.loops import event
from tests.harness.sprites import Sprites

_NEVER = 10**18  # seconds that no date has


def heartbeat(**members: Any) -> sprite_pb2.Heartbeat:
    """One of a runtime that lives."""
    beat = sprite_pb2.Heartbeat(boot_id="b-1", sequence=1, **members)
    beat.sent_at.GetCurrentTime()
    beat.granted_interval.FromSeconds(1)
    beat.agent.pid = beat.runtime.pid = 7
    beat.agent.started_at.GetCurrentTime()
    beat.runtime.started_at.GetCurrentTime()
    beat.runtime.alive = True
    return beat


class Hostile(sprite_pb2_grpc.SpriteServiceServicer):
    """Serves an empty log. beat None: it never answers at all."""

    def __init__(self, beat: sprite_pb2.Heartbeat | None) -> None:
        self._beat = beat
        self.ended = threading.Event()

    def WatchEvents(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if self._beat is not None:
            opened = sprite_pb2.WatchEventsResponse()
            opened.opened.boot_id = "b-1"
            yield opened
        self.ended.wait()

    def WatchHeartbeats(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        while self._beat is not None and not self.ended.wait(0.2):
            yield sprite_pb2.WatchHeartbeatsResponse(heartbeat=self._beat)
        self.ended.wait()

    def GetSnapshot(self, request: Any, context: grpc.ServicerContext) -> Any:
        response = sprite_pb2.GetSnapshotResponse()
        response.snapshot.source.loop_id = request.loop_id
        return response


@contextmanager
def hostile(beat: sprite_pb2.Heartbeat | None) -> Iterator[str]:
    """The address of such an agent."""
    agent = Hostile(beat)
    server = grpc.server(ThreadPoolExecutor(8))
    sprite_pb2_grpc.add_SpriteServiceServicer_to_server(agent, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        agent.ended.set()
        server.stop(None).wait()


def with_impossible(*path: str) -> sprite_pb2.Heartbeat:
    """A heartbeat of which one time is none."""
    beat = heartbeat()
    target: Any = beat
    for name in path:
        target = getattr(target, name)
    target.seconds = _NEVER
    return beat


@pytest.mark.parametrize(
    "path", [("sent_at",), ("agent", "started_at"), ("runtime", "started_at"), ("granted_interval",)], ids=".".join
)
def test_impossible_times_of_one_agent_stop_no_other_loop(
    sprites: Sprites, fleet: Fleet, path: tuple[str, ...]
) -> None:
    good = sprites.make("good", recent(1, 3))
    with hostile(with_impossible(*path)) as url:
        fleet.register(entry("bad", url), entry("good", good.agent.url))
        manager = fleet.start()
        told = manager.wait_for("bad", lambda view: view.connection.reason)
        assert told.connection.reason == "service_response_invalid"
        good.loop.append(recent(4, 5))
        fleet.wait_until_read("good", 5)
        assert manager.stop() == 0


def test_name_that_is_no_text_is_shown_all_the_same(sprites: Sprites, fleet: Fleet) -> None:
    odd = event(1, timestamp=format_utc(time.time()))
    sprite = sprites.make("odd", odd.replace(b'"event":"', b'"event":"\\ud800'))
    fleet.register(entry("odd", sprite.agent.url))
    manager = fleet.start()
    view = manager.wait_for("odd", lambda view: view.last_event_name)
    assert view.last_event_name.startswith("\N{REPLACEMENT CHARACTER}") or "?" in view.last_event_name
    assert manager.stop() == 0
