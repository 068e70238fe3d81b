"""An agent that is stopped and continued notices it, and says so by another boot id."""

import signal
import time

from superloop.ops.v1 import sprite_pb2
from tests.harness.agents import BEARER, StartAgent
from tests.harness.loops import LoopFiles, events
from tests.harness.streams import until, until_line, watch
from tests.harness.waiting import wait_for

# More than the agent takes for a pause (5 s), and no more: this is the whole cost of the test.
STOPPED_SECONDS = 6.1
# Far less than the interval of the heartbeats.
AT_ONCE_SECONDS = 2.0


def test_resumed_agent_says_so_under_another_boot_id(loop: LoopFiles, start: StartAgent) -> None:
    loop.append(events(1, 2))
    agent = start("--sprite-id", "sprite-7")
    with agent.stub() as stub:
        request = sprite_pb2.WatchHeartbeatsRequest()
        request.interval.seconds = 60
        beats = [stub.WatchHeartbeats(request, metadata=BEARER, timeout=40) for _ in range(2)]
        first = [next(stream).heartbeat for stream in beats]
        following = watch(stub, "alpha", 40, follow=True)
        opened = until(following, "bookmark")[0].opened
        assert {(beat.boot_id, beat.sprite_id) for beat in first} == {(opened.boot_id, opened.sprite_id)}
        assert opened.sprite_id == "sprite-7"
        assert not first[0].agent.HasField("resumed_at")

        agent.signal(signal.SIGSTOP)
        time.sleep(STOPPED_SECONDS)
        loop.append(events(3, 4))
        continued = time.time()
        agent.signal(signal.SIGCONT)

        second = [next(stream).heartbeat for stream in beats]
        assert time.time() - continued < AT_ONCE_SECONDS
        (boot_id,) = {beat.boot_id for beat in second}
        assert boot_id != opened.boot_id
        assert {(beat.sequence, beat.sprite_id) for beat in second} == {(2, "sprite-7")}
        for beat in second:
            assert abs(beat.agent.resumed_at.ToNanoseconds() / 1e9 - continued) < AT_ONCE_SECONDS
            assert 5 <= beat.agent.suspended_for.ToMilliseconds() / 1000 < STOPPED_SECONDS + 2
        # The stream that was open goes on, and one that is opened now tells the new id.
        until_line(following, 4)
        again = next(watch(stub, "alpha")).opened
        assert (again.boot_id, again.sprite_id) == (boot_id, "sprite-7")
        for stream in beats:
            stream.cancel()
        following.cancel()
    wait_for(lambda: "[sprite_resumed]" in agent.said(), what="the log to tell")
