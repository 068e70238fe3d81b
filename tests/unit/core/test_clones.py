"""Whether a sprite runs twice (architecture 4)."""

from manager.core.clones import GONE_SECONDS, Clones, Start

SPRITE = "agent:sprite-1"
BORN = 1000.0


def start(boot: str, *, pid: int = 1, at: float = BORN) -> Start:
    return Start(boot, (pid, at), at)


def heard(*beats: tuple[Start, float]) -> Clones:
    clones = Clones()
    for which, now in beats:
        clones.hear(SPRITE, which, now)
    return clones


def test_one_agent_is_no_clone_however_often_it_is_heard() -> None:
    clones = heard(*((start("a"), BORN + second) for second in range(0, 100, 5)))
    assert clones.boot_ids(SPRITE, BORN + 100) == ["a"]
    assert clones.boot_ids("agent:another", BORN + 100) == []


def test_two_starts_that_live_at_the_same_time_are_two_sprites() -> None:
    a, b = start("a"), start("b", pid=2, at=BORN + 50)
    clones = heard((a, BORN + 60), (b, BORN + 61), (a, BORN + 65))
    assert clones.boot_ids(SPRITE, BORN + 66) == ["a", "b"]


def test_a_connection_led_from_one_to_the_other_is_enough() -> None:
    # Each was alive while the other was heard: B began long before A was heard for the last time.
    a, b = start("a"), start("b", pid=2, at=BORN + 10)
    clones = heard((a, BORN + 100), (b, BORN + 105))
    assert clones.boot_ids(SPRITE, BORN + 105) == ["a", "b"]


def test_older_sprite_heard_after_the_younger_one_is_a_clone() -> None:
    a, b = start("a"), start("b", pid=2, at=BORN + 10)
    assert heard((b, BORN + 20), (a, BORN + 25)).boot_ids(SPRITE, BORN + 25) == ["a", "b"]


def test_restart_ends_one_start_before_the_next_begins() -> None:
    a, b = start("a"), start("b", pid=2, at=BORN + 101)
    assert heard((a, BORN + 100), (b, BORN + 102)).boot_ids(SPRITE, BORN + 102) == ["b"]


def test_start_times_of_whole_seconds_make_no_clone_of_a_restart() -> None:
    a, b = start("a"), start("b", pid=2, at=BORN + 99)
    assert heard((a, BORN + 100), (b, BORN + 101)).boot_ids(SPRITE, BORN + 101) == ["b"]


def test_new_boot_id_of_the_same_process_is_a_resume() -> None:
    clones = heard((start("a"), BORN + 100), (start("b"), BORN + 140))
    assert clones.boot_ids(SPRITE, BORN + 140) == ["b"]


def test_resumed_copy_of_a_memory_image_beside_the_original_is_a_clone() -> None:
    # The copy has the process and start time of the original; it takes a new boot id when it resumes.
    clones = heard((start("a"), BORN + 100), (start("b"), BORN + 101), (start("a"), BORN + 105))
    assert clones.boot_ids(SPRITE, BORN + 105) == ["a", "b"]


def test_goodbye_ends_a_clone_at_once() -> None:
    a, b = start("a"), start("b", pid=2, at=BORN + 50)
    clones = heard((a, BORN + 60), (b, BORN + 61), (a, BORN + 65))
    clones.end(SPRITE, "a")
    assert clones.boot_ids(SPRITE, BORN + 66) == ["b"]
    clones.end(SPRITE, "b")
    clones.end(SPRITE, "b")
    assert clones.boot_ids(SPRITE, BORN + 66) == []


def test_overlap_of_a_changeover_clears_when_the_old_one_is_gone() -> None:
    a, b = start("a"), start("b", pid=2, at=BORN + 50)
    clones = heard((a, BORN + 60), (b, BORN + 61))
    assert clones.boot_ids(SPRITE, BORN + 60 + GONE_SECONDS) == ["a", "b"]
    assert clones.boot_ids(SPRITE, BORN + 61 + GONE_SECONDS) == ["b"]
    clones.hear(SPRITE, b, BORN + 62 + GONE_SECONDS)
    assert clones.boot_ids(SPRITE, BORN + 63 + GONE_SECONDS) == ["b"]


def test_agent_whose_own_clock_was_set_back_makes_no_clone_of_its_restart() -> None:
    a, b = start("a"), start("b", pid=2, at=BORN + 101)
    # Its start is told as its clock stood then, and so seems to lie an hour ahead.
    later = a._replace(started_at=BORN + 3600)
    assert heard((a, BORN + 50), (later, BORN + 100), (b, BORN + 102)).boot_ids(SPRITE, BORN + 102) == ["b"]


def test_clock_of_the_manager_that_is_set_back_makes_no_clone_of_a_restart() -> None:
    clones = heard((start("a"), BORN + 100))
    clones.shift(-3600)
    clones.hear(SPRITE, start("b", pid=2, at=BORN + 101 - 3600), BORN + 102 - 3600)
    assert clones.boot_ids(SPRITE, BORN + 102 - 3600) == ["b"]


def test_clock_of_the_manager_that_is_set_forward_forgets_no_clone() -> None:
    clones = heard((start("a"), BORN + 60), (start("b", pid=2, at=BORN + 50), BORN + 61))
    clones.shift(3600)
    assert clones.boot_ids(SPRITE, BORN + 62 + 3600) == ["a", "b"]
