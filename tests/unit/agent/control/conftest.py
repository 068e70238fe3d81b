"""A repository whose loop a plane controls, with a runtime of the test's own."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sprite_agent.control import ControlPlane
from sprite_agent.runtime.repository import Repository
from tests.harness.control import Runtime
from tests.harness.loops import LoopFiles, Repo, event

MakePlane = Callable[..., ControlPlane]


@pytest.fixture
def runtime(tmp_path: Path, loop: LoopFiles) -> Runtime:
    loop.append(event(1))
    return Runtime(tmp_path / "runtime")


@pytest.fixture
def make_plane(repo: Repo, runtime: Runtime) -> Iterator[MakePlane]:
    """Makes planes, each as of a process of its own, and closes them with the test."""
    made: list[tuple[ControlPlane, Repository]] = []

    def make(**settings: object) -> ControlPlane:
        repository = Repository(str(repo.root))
        chosen = {"runtime": str(runtime.path), "runtime_timeout": 10.0} | settings
        plane = ControlPlane(repository, **chosen)  # type: ignore[arg-type]
        made.append((plane, repository))
        return plane

    yield make
    for plane, repository in made:
        plane.close()
        repository.close()


@pytest.fixture
def plane(make_plane: MakePlane) -> ControlPlane:
    return make_plane()
