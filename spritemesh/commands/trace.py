"""`spritemesh trace view` and `spritemesh trace stats`: read the trace files that `spritemesh.tracing`
writes."""

import argparse
import os
import sys
import time
from collections.abc import Callable

from spritemesh import jsontext
from spritemesh.commandline import Repeated, choice, positive, refused
from spritemesh.errors import OpsError, one_line
from spritemesh.ids import printable, validate_trace_id
from spritemesh.jsontext import JSON
from spritemesh.names import TRACING_FILE_VARIABLE
from spritemesh.program import long_lived
from spritemesh.tracing.layers import BY_WORD, allowed
from spritemesh.tracing.reading.reader import opened
from spritemesh.tracing.reading.records import STATUSES, Damage
from spritemesh.tracing.reading.selection import Selection, event_count, moment
from spritemesh.tracing.reading.telling import damage_document, damage_lines, shows_colours
from spritemesh.tracing.reading.tree import find_tree
from spritemesh.tracing.settings import resolved
from spritemesh.tracing.viewer import DEFAULT_LAST, View

_FORMS = ("json", "pretty", "table")
_DEFAULT_TOP = 10


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare word and flags."""
    parser.add_argument("what", nargs="?", default="", metavar="view|stats", help="events, or statistics")
    parser.add_argument(
        "--file",
        action=Repeated,
        metavar="PATH",
        help="trace file, with the old ones that it moved aside into; may be given again"
        f" (default: that of the tracer: {TRACING_FILE_VARIABLE}, the settings, trace.jsonl)",
    )
    parser.add_argument(
        "--last", type=positive, metavar="N", help="only the last N events (view without other flags: 20)"
    )
    parser.add_argument(
        "--hrm", type=_layer, default="", metavar="LAYER", help="of this layer: altitude or alt, ..."
    )
    parser.add_argument("--status", type=choice(*STATUSES), default="", metavar="S", help=", ".join(STATUSES))
    parser.add_argument("--operation", default="", metavar="NAME", help="of exactly this operation")
    parser.add_argument("--component", default="", metavar="NAME", help="of exactly this file or class")
    parser.add_argument("--since", metavar="TIME", help="begun then or later: ISO 8601, or 10m, 2h, 1d ago")
    parser.add_argument("--until", metavar="TIME", help="begun then or earlier, likewise")
    view = parser.add_argument_group("view")
    view.add_argument(
        "--trace-id", metavar="ID", help="the whole tree of this span: what it hangs from, and all beside it"
    )
    view.add_argument("--follow", action="store_true", help="stay, and show what is written from now on")
    stats = parser.add_argument_group("stats")
    stats.add_argument(
        "--top", type=positive, metavar="N", help=f"so many of the slowest (default: {_DEFAULT_TOP})"
    )
    parser.add_argument(
        "--output",
        choices=_FORMS,
        metavar="FORM",
        help="json (one line each), pretty (indented JSON) or table (for people);"
        " default: table on a terminal, json elsewhere",
    )


def run(args: argparse.Namespace) -> int:
    """Show what is asked for."""
    if args.what == "view":
        work: Callable[[argparse.Namespace, list[str], str], None] = _view
        others = {"--top": args.top}
    elif args.what == "stats":
        work = _stats
        others = {"--trace-id": args.trace_id, "--follow": args.follow}
    else:
        raise refused("trace", f"takes the word view or stats, not {args.what!r}")
    for flag, value in others.items():
        if value:
            raise refused(flag, f"does not go with trace {args.what}")
    paths = list(dict.fromkeys(args.file)) or [_traced_to()]
    if "" in paths:
        raise refused("--file", "needs a value")
    form = args.output or ("table" if sys.stdout.isatty() else "json")
    try:
        work(args, paths, form)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OpsError("document_invalid", f"trace files cannot be read: {error.strerror}") from error
    _flush()
    return 0


def _view(args: argparse.Namespace, paths: list[str], form: str) -> None:
    selection = _selection(args)
    last = args.last
    if last is None and not args.trace_id and (args.follow or selection == Selection()):
        last = DEFAULT_LAST
    if args.trace_id:
        validate_trace_id(args.trace_id, field="--trace-id")
        if args.follow:
            raise refused("--follow", "does not go with --trace-id: a tree is known when its lines are there")
    view = View(form, _write, _warn, has_colours=form == "table" and shows_colours(sys.stdout))
    damage = Damage()
    is_any = True
    with opened(paths, may_lack=args.follow) as files:
        if args.trace_id:
            tree = find_tree(files, args.trace_id, damage)
            told = damage_document(files, damage)
            if tree is not None:
                is_any = view.show_tree(tree, selection, told, last=last)
        else:
            tree = None
            is_any = view.show_all(files, selection, damage, last=last, only_whole=args.follow)
            told = damage_document(files, damage)
        _flush()
        for line in damage_lines(told):
            _warn(line)
        if args.trace_id and tree is None:
            where = ", ".join(map(one_line, paths))
            raise OpsError(
                "trace_not_found",
                f"no event in {where} has trace id {printable(args.trace_id)}",
                field="--trace-id",
            )
        if form == "table" and not is_any and not args.follow:
            # People would wonder whether anything was looked at.
            count = len(tree.spans) if tree is not None else event_count(files)
            _warn(f"no event of {count} matches" if count else "there are no events")
        if args.follow:
            long_lived()
            for _ in view.follow(paths, files, selection):
                _flush()


def _stats(args: argparse.Namespace, paths: list[str], form: str) -> None:
    from spritemesh.tracing.stats import gathered, stats_lines

    damage = Damage()
    with opened(paths) as files:
        found = gathered(files, _selection(args), damage, last=args.last, top=args.top or _DEFAULT_TOP)
        told = damage_document(files, damage)
    document: JSON = {"files": paths, **found.document(), "malformed": told}
    if form == "table":
        _write("".join(f"{line}\n" for line in [*stats_lines(document), *damage_lines(told)]))
    else:
        _write((jsontext.pretty if form == "pretty" else jsontext.encode)(document).decode() + "\n")


def _selection(args: argparse.Namespace) -> Selection:
    now = time.time()
    since = _moment("--since", args.since, now)
    until = _moment("--until", args.until, now)
    if since is not None and until is not None and since > until:
        raise refused("--since", "must not be later than --until")
    return Selection(args.hrm, args.status, args.operation, args.component, since, until)


def _moment(flag: str, text: str | None, now: float) -> float | None:
    try:
        return moment(text, now) if text else None
    except ValueError as error:
        raise refused(flag, f"{error}, not {printable(text or '')}") from error


def _layer(text: str) -> str:
    layer = BY_WORD.get(text.lower())
    if layer is None:
        raise ValueError(f"must be one of {allowed()}")
    return layer.name


def _traced_to() -> str:
    """Where a tracer would write to that is started here."""
    named = os.environ.get(TRACING_FILE_VARIABLE)
    return named or resolved(os.environ, enabled=True).output


def _write(text: str) -> None:
    """Write to standard output. Raises OpsError `state_unwritable`; BrokenPipeError passes."""
    _to_standard_output(lambda: sys.stdout.buffer.write(text.encode("utf-8", "replace")))


def _flush() -> None:
    _to_standard_output(sys.stdout.flush)


def _to_standard_output(work: Callable[[], object]) -> None:
    try:
        work()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OpsError("state_unwritable", f"cannot write to standard output: {error.strerror}") from error


def _warn(line: str) -> None:
    sys.stderr.write(f"{line}\n")
