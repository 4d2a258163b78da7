"""The help of the program, docs/cli.md and the variables belong together."""

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
SUBCOMMANDS = ["update", "serve", "join", "inspect", "doctor", "demo", "bench"]
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
COMMON = {"help", "version"}


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CHECKPOINT_ENGINE_")}
    return subprocess.run(
        [BINARY, *arguments],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def options_of(subcommand: str) -> str:
    """The part of the help that lists options."""
    result = run(subcommand, "--help")
    assert result.returncode == 0
    return result.stdout.split("OPTIONS:", 1)[1]


def flags_of(subcommand: str) -> set[str]:
    lines = re.findall(r"^  (--\S.*)$", options_of(subcommand), flags=re.MULTILINE)
    flags = {flag for line in lines for flag in FLAG.findall(line.split("  ")[0])}
    # The other half of a switch needs no line of its own.
    return {f for f in flags if f.removeprefix("no-") not in flags - {f}} - COMMON


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_every_flag_is_documented_with_its_variable(subcommand: str) -> None:
    text = (REPOSITORY / "docs/cli.md").read_text()
    section = text.split(f"## checkpoint-engine {subcommand}\n", 1)[1].split("\n## ", 1)[0]
    shared = text.split("## Engine options\n", 1)[1]
    help_text = options_of(subcommand)
    for flag in flags_of(subcommand):
        variable = "CHECKPOINT_ENGINE_" + flag.upper().replace("-", "_")
        row = re.compile(rf"^\| `--{flag}( [A-Z:]+)?` \| `{variable}` \|", re.MULTILINE)
        assert row.search(section) or row.search(shared), f"--{flag} of {subcommand}"
        assert f"[{variable}]" in help_text, f"--{flag} of {subcommand}"


def test_every_documented_flag_exists() -> None:
    text = (REPOSITORY / "docs/cli.md").read_text()
    documented = set(re.findall(r"^\| `--([a-z-]+)", text, flags=re.MULTILINE))
    known = set().union(*(flags_of(subcommand) for subcommand in SUBCOMMANDS))
    assert documented == known


def test_version_and_help_succeed() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", run("--version").stdout)
    assert "SUBCOMMANDS:" in run("--help").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completions_are_made(shell: str) -> None:
    result = run("--generate-completion-script", shell)
    assert result.returncode == 0
    assert "checkpoint-path" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["bogus"], {}, ["bogus"]),
        (["update"], {}, ["--checkpoint-path", "CHECKPOINT_ENGINE_CHECKPOINT_PATH"]),
        (["update", "--checkpoint-path", "/x"], {}, ["--endpoint"]),
        (["update", "--timeout", "soon"], {}, ["--timeout", "soon"]),
        (
            ["update", "--checkpoint-path", "/x", "--endpoint", "http://h"],
            {"CHECKPOINT_ENGINE_TIMEOUT": "soon"},
            ["CHECKPOINT_ENGINE_TIMEOUT", "soon"],
        ),
        (
            ["update", "--checkpoint-path", "/x", "--endpoint", "http://h"],
            {"CHECKPOINT_ENGINE_CONSUME": "perhaps"},
            ["CHECKPOINT_ENGINE_CONSUME", "perhaps"],
        ),
        (
            ["update", "--checkpoint-path", "/x", "--endpoint", "http://h"],
            {"CHECKPOINT_ENGINE_UPDATE_METHOD": "p2p"},
            ["--source", "--load-metas-file", "--metas-url"],
        ),
        (
            ["update", "--checkpoint-path", "/x", "--update-method", "all"],
            {"CHECKPOINT_ENGINE_ENDPOINT": "http://a,http://b"},
            ["--source"],
        ),
        (
            ["update", "--checkpoint-path", "/x", "--uds", "/a", "--uds", "/b"],
            {"CHECKPOINT_ENGINE_ENDPOINT": "http://a,http://b,http://c"},
            ["2 '--uds'", "3 '--endpoint'"],
        ),
        (
            ["update", "--checkpoint-path", "/x", "--endpoint", "http://a", "--ranks", "0/1"],
            {},
            ["--ranks", "2 lists", "1 '--endpoint'"],
        ),
        (["join", "--endpoint", "http://h"], {}, ["--source"]),
        (["join", "--source", "http://h:1"], {}, ["--endpoint"]),
        (
            ["join", "--endpoint", "http://h", "--source", "https://h:1/path"],
            {},
            ["https://h:1/path", "--source"],
        ),
        (["serve", "--listen", "0.0.0.0:1"], {}, ["--token-file"]),
        (["serve", "--listen", "0.0.0.0:1", "--no-token"], {}, ["--token-file"]),
        (["serve", "--listen", "127.0.0.1:0"], {}, ["--token-file", "--uds", "--no-token"]),
        (["serve", "--listen", "127.0.0.1"], {}, ["--listen"]),
        (["serve", "--listen", "127.0.0.1:1", "--uds", "/x"], {}, ["--uds", "exclude"]),
        (["serve", "--token-file", "/nonexistent"], {}, ["/nonexistent"]),
        (["inspect"], {}, ["<paths>"]),
    ],
)
def test_wrong_usage_ends_with_2(
    arguments: list[str], variables: dict[str, str], words: list[str]
) -> None:
    result = run(*arguments, **variables)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    for word in words:
        assert word in result.stderr


def test_the_command_line_wins_over_variables() -> None:
    arguments = ["update", "--checkpoint-path", "/x", "--endpoint", "http://h"]
    result = run(*arguments, "--update-method", "p2p", CHECKPOINT_ENGINE_UPDATE_METHOD="broadcast")
    assert result.returncode == 2
    assert "--source" in result.stderr


def test_failures_end_with_1_and_name_the_object() -> None:
    result = run("inspect", "/nonexistent/model")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert "/nonexistent/model" in result.stderr
