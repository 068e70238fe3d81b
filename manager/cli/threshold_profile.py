"""`threshold-profile`: show one threshold profile of the catalog, or list them (contract H.1, K)."""

import argparse

from manager.cli.catalog import VARIABLE, read_catalog
from manager.cli.output import add_output_flags, emit, write
from manager.core.thresholds import list_profiles, resolve_profile


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--profiles-file",
        metavar="FILE",
        help=f"catalog; absent: the one that {VARIABLE} names, else the built-in one",
    )
    parser.add_argument("--profile", metavar="NAME", help="profile; absent: the catalog's default")
    parser.add_argument("--list", action="store_true", help="print the names of all profiles, one a line")
    add_output_flags(parser)


def run(args: argparse.Namespace) -> int:
    catalog, path = read_catalog(args.profiles_file)
    if args.list:
        names = list_profiles(catalog, path)
        write("".join(f"{name}\n" for name in names).encode())
        return 0
    document = resolve_profile(catalog, path, args.profile or "")
    emit(document, pretty=args.pretty, output=args.output)
    return 0
