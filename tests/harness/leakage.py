"""Plugin of pytest: a test that leaves a secret behind fails (`tests.harness.secrets`)."""

from collections.abc import Generator, Iterator

import pytest

from tests.harness import secrets

_searched: set[str] = set()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Search, when a test and all that it started has ended."""
    report = yield
    if report.when != "teardown":
        return report
    found = secrets.take()
    directory = getattr(item, "funcargs", {}).get("tmp_path")
    if directory is not None:
        found += secrets.leaks(directory)
        _searched.add(str(directory))
    for title, text in report.sections:
        if name := secrets.secret_in(text.encode(errors="replace")):
            found.append(f"{title} holds the {name}")
    if found and report.outcome != "failed":
        report.outcome = "failed"
        report.longrepr = "\n".join(["a secret has leaked:", *found])
    return report


@pytest.fixture(scope="session", autouse=True)
def no_secret_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Search what several tests shared, when they all have ended: the first fixture of all is the last."""
    with secrets.watch():
        yield
    found = [*secrets.take(), *secrets.leaks(tmp_path_factory.getbasetemp(), _searched)]
    if found:
        pytest.fail("\n".join(["a secret has leaked:", *found]), pytrace=False)
