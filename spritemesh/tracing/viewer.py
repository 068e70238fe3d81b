"""Events of trace files as they are asked for: the last ones, one tree, or what is written from now on.

    python -m spritemesh.tracing.viewer --last 50 --status error

is `spritemesh trace view`.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from spritemesh import jsontext
from spritemesh.jsontext import JSON
from spritemesh.tracing.reading.branches import Branch, branches
from spritemesh.tracing.reading.follow import POLL_SECONDS, Follower, followers
from spritemesh.tracing.reading.reader import MAX_LINE_BYTES, LineFiles
from spritemesh.tracing.reading.records import Damage, Malformed, document, facts_of
from spritemesh.tracing.reading.selection import TOO_LONG, Selection, events, regions_of
from spritemesh.tracing.reading.telling import Teller, damaged_line, short_id
from spritemesh.tracing.reading.tree import Span, Tree

# So many events are shown when nothing says which.
DEFAULT_LAST = 20
_SHOWN_CHARS = 120
_MARK = "  ◀ asked for"


class View:
    """Shows events in one form: json (a line each), pretty or table. write: takes text. warn: takes a line
    about what is no event."""

    def __init__(
        self,
        form: str,
        write: Callable[[str], object],
        warn: Callable[[str], object],
        *,
        has_colours: bool = False,
    ) -> None:
        self._form = form
        self._write = write
        self._warn = warn
        self._teller = Teller(has_colours=has_colours) if form == "table" else None

    def show_all(
        self,
        files: LineFiles,
        selection: Selection,
        damage: Damage,
        *,
        last: int | None,
        only_whole: bool = False,
    ) -> bool:
        """The events of a selection; of those the last ones. Whether there are any. only_whole: leave out
        what has no line end yet. damage: gets the malformed lines between them. Raises OSError."""
        is_any = False
        regions = regions_of(files, selection)
        if only_whole:
            regions = [files.whole(region) for region in regions]
        for event in events(files, regions, selection, damage, last=last):
            is_any = True
            try:
                self._show(document(event.line))
            except Malformed as problem:
                damage.note(event.position, str(problem), event.line)
        return is_any

    def follow(self, paths: Sequence[str], files: LineFiles, selection: Selection) -> Iterator[None]:
        """The events of a selection as they are written behind the whole lines of `files`; without end. Comes
        back after each look. Raises OSError."""
        readers = list(zip(paths, followers(paths, files), strict=True))
        while True:
            for path, reader in readers:
                self._show_new(path, reader, selection)
            yield
            time.sleep(POLL_SECONDS)

    def show_tree(self, tree: Tree, selection: Selection, damage: JSON, *, last: int | None) -> bool:
        """A tree, and of it the selected spans: a document, or an indented line each. Whether there are any.
        damage: as `damage_document` tells it. last: only so many, the last ones of those."""
        found = [
            branch for branch in branches(tree) if branch.span is None or selection.matches(branch.span.facts)
        ]
        found = found if last is None else found[-last:]
        if self._teller is None:
            self._write(self._json(tree_document(tree, found, damage)))
            return bool(found)
        if tree.is_root_missing:
            told = f"{short_id(tree.root_id)}: nowhere in the files; still open, or not kept"
            self._write(f"{told}{_mark(tree, tree.root_id)}\n")
        for branch in found:
            if branch.span is not None:
                line = self._teller.leaf(_members(branch.span), branch.depth)
                self._write(f"{line}{_mark(tree, branch.trace_id)}\n")
        if tree.left_out:
            self._write(f"and {tree.left_out} more at least, which are too many to show\n")
        return any(branch.span is not None for branch in found)

    def _show_new(self, path: str, reader: Follower, selection: Selection) -> None:
        for line in reader.read():
            try:
                if len(line) > MAX_LINE_BYTES:
                    raise Malformed(TOO_LONG)
                if selection.matches(facts_of(line)):
                    self._show(document(line))
            except Malformed as problem:
                text = line[:_SHOWN_CHARS].decode("utf-8", "replace")
                self._warn(
                    damaged_line(f"warning: a line of {path}", {"problem": str(problem), "text": text})
                )

    def _show(self, event: Mapping[str, Any]) -> None:
        self._write(self._json(event) if self._teller is None else f"{self._teller.line(event)}\n")

    def _json(self, value: JSON) -> str:
        return (jsontext.pretty if self._form == "pretty" else jsontext.encode)(value).decode() + "\n"


def tree_document(tree: Tree, found: Sequence[Branch], damage: JSON) -> dict[str, JSON]:
    """A tree for programs: its spans in the order in which it is drawn, each with its depth. Flat, since a
    tree may be deeper than JSON may be nested."""
    return {
        "traceId": tree.asked,
        "rootId": tree.root_id,
        "rootIsMissing": tree.is_root_missing,
        "spanCount": len(tree.spans),
        "leftOut": tree.left_out,
        "malformed": damage,
        "spans": [
            {
                "depth": branch.depth,
                "isAskedFor": branch.trace_id == tree.asked,
                "event": _members(branch.span),
            }
            for branch in found
            if branch.span is not None
        ],
    }


def _mark(tree: Tree, trace_id: str) -> str:
    return _MARK if trace_id == tree.asked else ""


def _members(span: Span) -> Mapping[str, Any]:
    try:
        return document(span.line)
    except Malformed:
        # Its metadata are nested too deeply for any document.
        members: Mapping[str, Any] = msgspec.to_builtins(span.facts)
        return members


def main() -> int:
    """Run this module's command line; returns the exit code."""
    from spritemesh.cli import main as run

    return run(["trace", "view", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
