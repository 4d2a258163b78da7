"""The guide and the other pages: their links, the flags that they name, the site of the library."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = os.environ.get(
    "CHECKPOINT_ENGINE_BIN", str(REPOSITORY / ".build/release/checkpoint-engine")
)
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
    REPOSITORY / "python" / "README.md",
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```\w*\n.*?^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SUBCOMMANDS = ("update", "serve", "join", "inspect", "doctor", "demo", "bench", "reference-engine")


def page_id(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as web viewers of Markdown make them."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", path.read_text()), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def help_of(subcommand: str) -> str:
    result = subprocess.run(
        [BINARY, subcommand, "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    return result.stdout


def commands() -> dict[str, set[str]]:
    """The flags that shell blocks of the pages give to each subcommand."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for block in SHELL.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                call = re.search(r"\bcheckpoint-engine ([a-z-]+)(.*)", line.split("#")[0])
                if call:
                    flags = re.findall(r"(?<!\S)--[a-z-]+", call[2])
                    found.setdefault(call[1], set()).update(flags)
    return found


def test_every_command_of_the_pages_exists() -> None:
    used = commands()
    assert {"update", "serve", "doctor"} <= used.keys() <= set(SUBCOMMANDS)
    for subcommand, flags in used.items():
        text = help_of(subcommand)
        for flag in flags:
            assert re.search(rf"{flag}(?![\w-])", text), f"{subcommand} {flag}"


def test_the_site_of_the_library_is_made() -> None:
    """Every link of its pages and of the code's comments leads to a symbol."""
    result = subprocess.run(
        [str(REPOSITORY / "scripts" / "build-docs")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    site = REPOSITORY / ".build" / "docs" / "documentation"
    for page in ("checkpointengine/updateanengine", "checkpointfiles", "checkpointmodel/dtype"):
        assert (site / page / "index.html").is_file()
