"""Writes the table of trace points into docs/tracing.md; `--check` only says whether it is current."""

import sys

from spritemesh.tracing.catalog import POINTS
from spritemesh.tracing.layers import BY_WORD

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
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> int:
    """Exit code 1 with `--check` when the page is not current."""
    with open(PAGE, encoding="utf-8") as file:
        page = file.read()
    if updated(page) == page:
        return 0
    if "--check" in sys.argv[1:]:
        sys.stderr.write(f"{PAGE} is not current: run `make docs`\n")
        return 1
    with open(PAGE, "w", encoding="utf-8") as file:
        file.write(updated(page))
    return 0


if __name__ == "__main__":
    sys.exit(main())
