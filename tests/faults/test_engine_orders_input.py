"""Orders about engines that make no sense: refused with the field or flag, and nobody is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from daemon import run, update_arguments, write_secret

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Samples
    from daemon import Daemon, Folders
    from fake_engine import FakeEngine


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pause": "stop"}, '"pause": expected abort, wait, keep, got the string "stop"'),
        ({"pause": True}, '"pause": expected a string'),
        ({"engine": "trt"}, '"engine": expected vllm, sglang'),
        ({"instances": [{"update_url": "http://h", "engine": 1}]}, "instances[0].engine"),
        ({"wake": "yes"}, '"wake": expected true or false'),
        ({"weight_version": ""}, '"weight_version"'),
        ({"weight_version": "a b"}, "weight version"),
        ({"weight_version": "a\nb"}, "weight version"),
        ({"weight_version": "x" * 257}, "256"),
    ],
)
def test_wrong_fields(
    daemon: Daemon, engine: FakeEngine, samples: Samples, fields: dict[str, object], words: str
) -> None:
    assert daemon.register("step", samples.first).status == 200
    body = {"instances": [{"update_url": engine.url}], **fields}
    answer = daemon.request("POST", "/v1/checkpoints/step/update", body)
    answer.check_failure(400, "invalid_argument", words)
    assert engine.control.calls == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pause", "stop"], "--pause"),
        (["--engine", "trt"], "--engine"),
        (["--weight-version", "a b"], "--weight-version"),
        (["--engine-token-file", "/nonexistent"], "/nonexistent"),
    ],
)
def test_wrong_flags(folders: Folders, samples: Samples, arguments: list[str], words: str) -> None:
    ended = run(*update_arguments(samples.first, "http://127.0.0.1:9", folders, *arguments))
    assert ended.code == 2, ended.stderr
    assert words in ended.stderr


@pytest.mark.parametrize("content", ["", "two words", "two\nlines", "x" * 5000])
def test_a_wrong_token_file(
    folders: Folders, samples: Samples, tmp_path: Path, content: str
) -> None:
    path = tmp_path / "token"
    write_secret(path, content)
    ended = run(
        *update_arguments(
            samples.first, "http://127.0.0.1:9", folders, "--engine-token-file", str(path)
        )
    )
    assert ended.code == 2
    assert str(path) in ended.stderr
    assert content == "" or content not in ended.stderr
