"""The flag with the keys that requests are signed with."""

import argparse
from typing import TYPE_CHECKING

from spritemesh.commandline import not_empty

if TYPE_CHECKING:
    from spritemesh.signer import Signer


def add_signing_flag(parser: argparse.ArgumentParser) -> None:
    """`--signing-key-file`."""
    parser.add_argument(
        "--signing-key-file",
        type=not_empty,
        metavar="FILE",
        help="keys; requests are signed with the first (docs/security.md; default: not signed)",
    )


def read_signer(args: argparse.Namespace) -> "Signer | None":
    """The signer of the flag, None without. Raises OpsError `signing_key_invalid`."""
    if not args.signing_key_file:
        return None
    from spritemesh.signer import signer_of

    return signer_of(args.signing_key_file)
