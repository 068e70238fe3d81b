"""Writes the list of everything that an installation runs, as CycloneDX 1.6 in JSON: dist/sbom.cdx.json.

    python -m tools.sbom

What is needed to run comes from pyproject.toml and, from there on, from what the installed packages say they
need, as on Linux with the lowest supported Python, which needs the most. Versions and hashes are those of
requirements.lock: a package has the hash of each file that an install may take. Two runs on one commit write
the same bytes: the time is that of the commit, and the serial number follows from the content.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageMetadata, metadata, requires, version
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spritemesh import __version__
from tools.lock import LOCK, LOWEST, ROOT
from tools.wheel import DIST, commit_time

FILE = "sbom.cdx.json"
# Of the serial numbers, which are to differ from everybody else's.
_NAMESPACE = UUID("7c1f8f5e-4c0b-5b0e-9a6d-2f3f0c9f7a11")
_SYSTEM = {
    "python_version": ".".join(map(str, LOWEST)),
    "python_full_version": ".".join(map(str, (*LOWEST, 0))),
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "sys_platform": "linux",
    "os_name": "posix",
}
_CLASSIFIER = "License :: OSI Approved :: "


class Locked(NamedTuple):
    """A package as requirements.lock has it. hashes: SHA-256 of its files, in hexadecimal."""

    version: str
    hashes: list[str]


def locked() -> dict[str, Locked]:
    """All packages of the lock, those for development included, by name."""
    packages: dict[str, Locked] = {}
    for text in (ROOT / LOCK).read_text("utf-8").replace("\\\n", " ").splitlines():
        if found := re.match(r"([\w.-]+)==([^\s;]+)", text):
            hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", text)
            packages[canonicalize_name(found[1])] = Locked(found[2], hashes)
    return packages


def needed(requirements: Iterable[str], extras: Iterable[str] = ()) -> dict[str, set[str]]:
    """The packages that some requirements name, with the extras that are asked of each."""
    found: dict[str, set[str]] = {}
    system = {name: str(value) for name, value in default_environment().items()} | _SYSTEM
    environments = [system | {"extra": extra} for extra in ("", *extras)]
    for text in requirements:
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate(environment) for environment in environments):
            found.setdefault(canonicalize_name(requirement.name), set()).update(requirement.extras)
    return found


def graph(roots: Iterable[str]) -> dict[str, list[str]]:
    """What each package needs, of all that the roots, and what they need, do. A root is a requirement."""
    edges: dict[str, list[str]] = {}
    waiting = list(needed(roots).items())
    while waiting:
        name, extras = waiting.pop()
        below = needed(requires(name) or (), sorted(extras))
        if not set(below) <= set(edges.get(name, ())):
            edges[name] = sorted({*edges.get(name, ()), *below})
            waiting += below.items()
        edges.setdefault(name, [])
    return edges


def licenses(package: PackageMetadata) -> list[Any]:
    """What a package says of its license: an expression of SPDX, or a name; nothing if it is silent."""
    said = package.json
    text = str(said.get("license_expression") or said.get("license") or "").strip()
    if not text or "\n" in text:  # some put the whole text there
        classifiers = package.get_all("Classifier") or []
        names = [item.removeprefix(_CLASSIFIER) for item in classifiers if item.startswith(_CLASSIFIER)]
        text = "; ".join(names)
    return [LicenseFactory().make_from_string(text)] if text else []


def component(name: str, lock: Locked) -> Component:
    """One package. Raises ValueError when another version is installed than the lock has."""
    if version(name) != lock.version:
        raise ValueError(f"{name} {version(name)} is installed, but {LOCK} has {lock.version}: make install")
    purl = PackageURL("pypi", None, name, lock.version)
    return Component(
        name=name,
        version=lock.version,
        purl=purl,
        bom_ref=str(purl),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=content) for content in lock.hashes],
        licenses=licenses(metadata(name)),
    )


def document() -> tuple[int, str]:
    """How many packages there are, and the whole list.

    Raises ValueError for a package that is not locked, or is installed in another version.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lock = locked()
    edges = graph(project["dependencies"])
    if missing := edges.keys() - lock.keys():
        raise ValueError(f"{LOCK} lacks {', '.join(sorted(missing))}: make lock")
    parts = {name: component(name, lock[name]) for name in sorted(edges)}
    purl = PackageURL("pypi", None, project["name"], __version__)
    root = Component(
        name=project["name"],
        version=__version__,
        type=ComponentType.APPLICATION,
        purl=purl,
        bom_ref=str(purl),
        description=project["description"],
        licenses=[LicenseFactory().make_from_string(project["license"])],
    )
    seal = "\n".join(f"{name} {lock[name]}" for name in parts)
    made_at = datetime.fromtimestamp(commit_time(), UTC)
    bom = Bom(
        components=parts.values(),
        metadata=BomMetaData(component=root, timestamp=made_at),
        serial_number=uuid5(_NAMESPACE, f"{__version__} {made_at}\n{seal}"),
    )
    bom.register_dependency(root, [parts[name] for name in needed(project["dependencies"])])
    for name, below in edges.items():
        bom.register_dependency(parts[name], [parts[other] for other in below])
    return len(parts), JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def main() -> int:
    """Exit code 1 when the packages that are installed are not those of the lock."""
    try:
        count, text = document()
    except ValueError as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 1
    DIST.mkdir(exist_ok=True)
    (DIST / FILE).write_text(text, "utf-8")
    print(f"sbom: {count} packages in dist/{FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
