"""``python -m checkpoint_engine --uds PATH``: the daemon with its HTTP API on a unix socket."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn

from .cli import become_program

_DESCRIPTION = """\
The daemon with its HTTP API on a unix socket, one on each host: the same as
'checkpoint-engine serve --uds PATH'. Every other flag of that command may follow;
'checkpoint-engine serve --help' lists them."""


def main(arguments: list[str]) -> NoReturn:
    """Becomes ``checkpoint-engine serve``; exits with code 2 when the socket is not named."""
    parser = argparse.ArgumentParser(
        prog="python -m checkpoint_engine",
        usage="%(prog)s --uds PATH [FLAG ...]",
        description=_DESCRIPTION,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--uds", required=True, metavar="PATH", help="the unix socket to listen on, mode 0600"
    )
    known, others = parser.parse_known_args(arguments)
    if not known.uds:
        parser.error("argument --uds: the path is empty")
    become_program(["serve", "--uds", known.uds, *others])


if __name__ == "__main__":
    main(sys.argv[1:])
