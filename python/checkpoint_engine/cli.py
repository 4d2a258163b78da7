"""The console script ``checkpoint-engine``: becomes the program that the wheel brings along.

It imports neither torch nor an engine.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

VARIABLE = "CHECKPOINT_ENGINE_BIN"
PACKAGE = Path(__file__).resolve().parent
BUNDLED = PACKAGE / "bin" / "checkpoint-engine"


def main() -> NoReturn:
    """Becomes ``checkpoint-engine`` with the arguments of this process."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["doctor"]:
        for line in clashes():
            sys.stderr.write(f"warning: {line}\n")
    become_program(arguments)


def become_program(arguments: list[str]) -> NoReturn:
    """Replaces this process by the program, so that signals and the exit code are its own.

    The program looks for ZeroMQ and NCCL in the packages of this interpreter first, and transfers
    between hosts run in it. Exits with a message and code 1 when the program is not there or cannot
    be started.
    """
    program = find_program()
    os.environ.setdefault("CHECKPOINT_ENGINE_PYTHON", sys.executable)
    if sys.prefix != sys.base_prefix:
        os.environ["VIRTUAL_ENV"] = sys.prefix
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(program, [str(program), *arguments])  # noqa: S606 (no shell is wanted)
    except OSError as error:
        sys.exit(f"error: cannot start {program}: {error.strerror}")


def find_program() -> Path:
    """The file that ``CHECKPOINT_ENGINE_BIN`` names, else the one of the wheel.

    Exits with a message that tells what was tried when there is none. ``PATH`` is not searched, as
    this script lies there itself.
    """
    named = os.environ.get(VARIABLE)
    program = Path(named) if named else BUNDLED
    if not program.is_file():
        origin = f"{VARIABLE} names {program}, which" if named else str(program)
        sys.exit(
            f"error: {origin} is not there. This installation of checkpoint_engine has no program "
            "of its own: build it with 'make build' and set "
            f"{VARIABLE}=.build/release/checkpoint-engine, or install a wheel made by 'make wheel'."
        )
    if Path(sys.argv[0]).is_file() and program.samefile(sys.argv[0]):
        sys.exit(f"error: {VARIABLE} names this script, {program}, instead of the program.")
    return program


def clashes(packages: Path = PACKAGE.parent) -> list[str]:
    """What is wrong with the distributions in ``packages``, the folder that holds this package.

    PyPI's ``checkpoint-engine`` has the same import name, so that each of the two overwrites and
    removes files of the other.
    """
    return [
        f"{found.name} in {packages} is PyPI's checkpoint-engine, which has the same import name: "
        "'pip uninstall checkpoint-engine', then install checkpoint-engine-native again with "
        "'--force-reinstall --no-deps'"
        for found in sorted(packages.glob("checkpoint_engine-*.dist-info"))
    ]


if __name__ == "__main__":
    main()
