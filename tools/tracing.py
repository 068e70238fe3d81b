"""Writes the table of trace points into docs/tracing.md; `--check` only says whether it is current."""

import sys

from spritemesh.tracing.catalog import POINTS
from spritemesh.tracing.layers import BY_WORD
from tools.pages import kept_current, spliced

PAGE = "docs/tracing.md"
BEGIN = "<!-- points: written by `make docs`, do not edit -->\n"
END = "<!-- end of points -->\n"


def table() -> str:
    """The generated part of the page."""
    rows = ["| layer | operation | what happens | members of `metadata` |\n|---|---|---|---|\n"]
    for layer, points in POINTS.items():
        named = f"`{layer}`, `{BY_WORD[layer].prefix}`"
        for operation, point in points.items():
            fields = ", ".join(f"`{name}`" for name in point.fields)
            rows.append(f"| {named} | `{operation}` | {point.does} | {fields} |\n")
            named = ""
    return "".join(rows)


def updated(page: str) -> str:
    """`page` with the generated part made anew."""
    return spliced(page, table() + "\n", begin=BEGIN, end=END)


def main() -> int:
    """Exit code 1 with `--check` when the page is not current."""
    return kept_current(PAGE, updated)


if __name__ == "__main__":
    sys.exit(main())
