"""Pages, or parts of them, that are made from code: written by `make docs`, compared by `make lint`."""

import sys
from collections.abc import Callable


def kept_current(page: str, made: Callable[[str], str]) -> int:
    """Write `page` anew if it is not what `made` makes of it; with `--check` on the command line only say so.

    made: the whole page, from what it is now ("" when there is none). Returns the exit code.
    """
    try:
        with open(page, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    fresh = made(text)
    if fresh == text:
        return 0
    if "--check" in sys.argv[1:]:
        sys.stderr.write(f"{page} is not current: run `make docs`\n")
        return 1
    with open(page, "w", encoding="utf-8") as file:
        file.write(fresh)
    return 0


def spliced(page: str, part: str, *, begin: str, end: str) -> str:
    """`page` with `part` between the two lines."""
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{part}{end}{after}"
