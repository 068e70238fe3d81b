"""All targets, by name; a module is imported when its target is wanted."""

from importlib import import_module

from tests.fuzz.driver import Target

NAMES = ("events", "artifacts", "peer", "state", "requests", "manager-calls", "bridge", "described")


def load(name: str) -> Target:
    """The target of a name."""
    module = import_module(f"tests.fuzz.targets.{name.replace('-', '_')}")
    found: Target = module.TARGET
    assert found.name == name
    return found
