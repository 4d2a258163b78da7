"""The wheel: what is in it, for which machines it is, and how it works where it is installed."""

from __future__ import annotations

import base64
import csv
import hashlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import checkpoint_engine
import pytest
from checkpoint_engine import cli

REPOSITORY = Path(__file__).resolve().parents[2]
BINARY = os.environ.get(
    "CHECKPOINT_ENGINE_BIN", str(REPOSITORY / ".build/release/checkpoint-engine")
)
PROGRAM = "checkpoint_engine/bin/checkpoint-engine"
HEAVY = {"torch", "numpy", "vllm", "sglang", "zmq"}


def environment(**variables: str) -> dict[str, str]:
    """The variables of this process without those of the program and of its Python environment."""
    dropped = ("CHECKPOINT_ENGINE_", "VIRTUAL_ENV", "PYTHON")
    return {k: v for k, v in os.environ.items() if not k.startswith(dropped)} | variables


def run(
    *command: object, timeout: float = 60, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def build(folder: Path, binary: object = BINARY) -> subprocess.CompletedProcess[str]:
    script = REPOSITORY / "scripts" / "build-wheel"
    return run(sys.executable, script, "--binary", binary, "--output-dir", folder)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = build(tmp_path_factory.mktemp("dist"))
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and pyzmq, which is copied: no network is needed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    packages = site_packages(folder)
    for source in site_packages(Path(sys.prefix)).glob("*zmq*"):
        shutil.copytree(source, packages / source.name)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    result = run(*pip, "install", "--no-index", "--no-build-isolation", wheel)
    assert result.returncode == 0, result.stderr
    assert run(*pip, "check").stdout == "No broken requirements found.\n"
    return folder


def site_packages(folder: Path) -> Path:
    (packages,) = folder.glob("lib/python3*/site-packages")
    return packages


def test_every_file_is_recorded_and_only_the_program_is_executable(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD")]
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(archive.read(record).decode()))}
        assert set(rows) == set(archive.namelist())
        for entry in archive.infolist():
            executable = stat.S_IMODE(entry.external_attr >> 16) == 0o755
            assert executable == (entry.filename == PROGRAM), entry.filename
            if entry.filename == record:
                continue
            content = archive.read(entry)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=")
            assert rows[entry.filename] == [f"sha256={digest.decode()}", str(len(content))]


def test_it_has_the_whole_package_and_the_licences(wheel: Path) -> None:
    package = REPOSITORY / "python"
    sources = {str(path.relative_to(package)) for path in package.glob("checkpoint_engine/**/*.py")}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = archive.read(f"{info}/METADATA").decode()
        tags = archive.read(f"{info}/WHEEL").decode()
        licences = [archive.read(name) for name in names if f"{info}/licenses/" in name]
    code = {name for name in names if name.startswith("checkpoint_engine/")}
    assert code == sources | {PROGRAM, "checkpoint_engine/py.typed"}
    assert "Name: checkpoint-engine-native\n" in metadata
    assert f"Version: {checkpoint_engine.__version__}\n" in metadata
    for extra in ("p2p", "vllm"):
        assert f"Provides-Extra: {extra}\n" in metadata
    assert "Root-Is-Purelib: false\n" in tags
    assert (REPOSITORY / "LICENSE").read_bytes() in licences
    assert any(b"boringssl" in text for text in licences)


def test_the_tag_is_what_the_program_needs(wheel: Path) -> None:
    auditwheel = Path(sys.executable).parent / "auditwheel"
    result = run(auditwheel, "show", wheel, timeout=300)
    assert result.returncode == 0, result.stderr
    text = " ".join(result.stdout.split())
    needed = re.search(r'constrains the platform tag to "([a-z0-9_]+)"', text)
    assert needed is not None, text
    assert wheel.name.endswith(f"-py3-none-{needed[1]}.whl")


def test_equal_sources_make_equal_wheels(wheel: Path, tmp_path: Path) -> None:
    again = Path(build(tmp_path).stdout.strip())
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_the_installed_program_is_that_of_the_package(installed: Path) -> None:
    program = site_packages(installed) / PROGRAM
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    assert program.stat().st_size < Path(BINARY).stat().st_size
    for command in ([program], [installed / "bin" / "checkpoint-engine"]):
        result = run(*command, "--version")
        assert result.stdout == f"{checkpoint_engine.__version__}\n", result.stderr


@pytest.mark.parametrize(
    "arguments", [["bin/checkpoint-engine", "--version"], ["-m", "checkpoint_engine", "--help"]]
)
def test_starting_imports_nothing_heavy(installed: Path, arguments: list[str]) -> None:
    python = installed / "bin" / "python"
    first = installed / arguments[0] if arguments[0] != "-m" else "-m"
    result = run(python, "-X", "importtime", first, *arguments[1:])
    assert result.returncode == 0
    imported = {line.split("|")[-1].strip() for line in result.stderr.splitlines()}
    assert "checkpoint_engine.cli" in imported
    assert {name.split(".")[0] for name in imported} & HEAVY == set()


def test_the_demo_runs(installed: Path) -> None:
    result = run(installed / "bin" / "checkpoint-engine", "demo")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "compared" in result.stdout


def health(path: Path) -> int:
    """The status of the daemon's answer; raises ``OSError`` while nobody listens."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(10)
    try:
        connection.sock.connect(str(path))
        connection.request("GET", "/v1/healthz")
        return connection.getresponse().status
    finally:
        connection.close()


def test_the_module_serves_on_a_unix_socket(installed: Path, tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    command = [installed / "bin" / "python", "-m", "checkpoint_engine", "--uds", path]
    process = subprocess.Popen(
        [*map(str, command), "--device", "host", "--log-level", "error"], env=environment()
    )
    try:
        end = time.monotonic() + 20
        while True:
            try:
                assert health(path) == http.HTTPStatus.OK
                break
            except OSError:
                assert process.poll() is None, "it has ended"
                assert time.monotonic() < end, "it does not answer"
                time.sleep(0.01)
        # The process has become the program: what it gets is a signal of its own.
        assert Path(f"/proc/{process.pid}/exe").resolve() == site_packages(installed) / PROGRAM
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not path.exists()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [([], ["--uds"]), (["--uds", ""], ["--uds", "empty"]), (["--uds"], ["--uds"])],
)
def test_the_module_needs_a_socket(arguments: list[str], words: list[str]) -> None:
    result = run(sys.executable, "-m", "checkpoint_engine", *arguments)
    assert result.returncode == 2
    for word in words:
        assert word in result.stderr


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A program that prints its environment and arguments, and ends with a code of its own."""
    program = tmp_path / "stand-in"
    program.write_text('#!/bin/sh\necho "$VIRTUAL_ENV" "$@"\nexit 41\n')
    program.chmod(0o755)
    return program


def test_arguments_and_exit_code_are_the_program_s(installed: Path, stand_in: Path) -> None:
    script = installed / "bin" / "checkpoint-engine"
    result = run(script, "a b", "--c", CHECKPOINT_ENGINE_BIN=str(stand_in))
    assert (result.returncode, result.stdout) == (41, f"{installed} a b --c\n")
    result = run(
        *(installed / "bin" / "python", "-m", "checkpoint_engine", "--listen", "x", "--uds", "/y"),
        CHECKPOINT_ENGINE_BIN=str(stand_in),
    )
    assert (result.returncode, result.stdout) == (41, f"{installed} serve --uds /y --listen x\n")


def test_a_missing_program_is_told_with_the_remedy(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "python" / "checkpoint_engine", tmp_path / "checkpoint_engine")
    command = [sys.executable, "-m", "checkpoint_engine.cli", "--version"]
    result = run(*command, PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    for word in (str(tmp_path / PROGRAM), "make build", "make wheel", "CHECKPOINT_ENGINE_BIN="):
        assert word in result.stderr
    result = run(*command, PYTHONPATH=str(tmp_path), CHECKPOINT_ENGINE_BIN="/nonexistent/program")
    assert result.returncode == 1
    assert "CHECKPOINT_ENGINE_BIN names /nonexistent/program" in result.stderr
    folder = tmp_path / "no-program"
    folder.write_text("text")
    result = run(*command, PYTHONPATH=str(tmp_path), CHECKPOINT_ENGINE_BIN=str(folder))
    assert result.returncode == 1
    assert f"cannot start {folder}: Permission denied" in result.stderr


def test_a_script_that_is_named_as_its_own_program_is_refused(installed: Path) -> None:
    script = installed / "bin" / "checkpoint-engine"
    result = run(script, "--version", CHECKPOINT_ENGINE_BIN=str(script), timeout=20)
    assert result.returncode == 1
    assert "names this script" in result.stderr


def test_doctor_tells_of_the_package_with_the_same_import_name(installed: Path) -> None:
    script = installed / "bin" / "checkpoint-engine"
    assert "PyPI's" not in run(script, "doctor", "--device", "host").stderr
    other = site_packages(installed) / "checkpoint_engine-0.4.2.dist-info"
    other.mkdir()
    try:
        result = run(script, "doctor", "--device", "host", "--json")
    finally:
        other.rmdir()
    assert "warning: checkpoint_engine-0.4.2.dist-info" in result.stderr
    assert "--force-reinstall" in result.stderr
    assert json.loads(result.stdout)["version"] == checkpoint_engine.__version__


def test_the_clash_is_seen_in_the_folder_of_the_package(tmp_path: Path) -> None:
    (tmp_path / "checkpoint_engine_native-0.1.0.dist-info").mkdir()
    assert cli.clashes(tmp_path) == []
    (tmp_path / "checkpoint_engine-0.1.2.dist-info").mkdir()
    assert len(cli.clashes(tmp_path)) == 1


def program_with(library: str, symbol_version: str, folder: Path) -> Path:
    """A program that needs ``symbol_version`` of ``library``; it is never run."""
    (folder / "library.c").write_text("int needed(void) { return 0; }")
    (folder / "main.c").write_text("int needed(void); int main(void) { return needed(); }")
    (folder / "versions").write_text(f"{symbol_version} {{ global: needed; local: *; }};")
    compiler = os.environ.get("CC", "cc")
    linker = f"-Wl,-soname,{library},--version-script=versions"
    for command in (
        [compiler, "-shared", "-fPIC", "-o", library, "library.c", linker],
        [compiler, "-o", "program", "main.c", library],
    ):
        subprocess.run(command, cwd=folder, check=True, timeout=60)
    return folder / "program"


@pytest.mark.parametrize(
    ("library", "version", "words"),
    [
        ("libswiftCore.so", "SWIFT_1", ["libswiftCore.so", "make build"]),
        ("libstdc++.so.6", "GLIBCXX_3.4.99", ["GLIBCXX_3.4.99", "no manylinux tag"]),
        ("libm.so.6", "GLIBC_ABI_NEW", ["GLIBC_ABI_NEW", "no manylinux tag"]),
    ],
)
def test_what_no_tag_promises_is_refused(
    library: str, version: str, words: list[str], tmp_path: Path
) -> None:
    result = build(tmp_path / "dist", program_with(library, version, tmp_path))
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    for word in words:
        assert word in result.stderr
    assert not (tmp_path / "dist").exists()


def test_a_program_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('#include <stdio.h>\nint main(void) { puts("9.9.9"); }')
    command = [os.environ.get("CC", "cc"), "-o", "program", "main.c"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    result = build(tmp_path / "dist", tmp_path / "program")
    assert result.returncode == 1
    assert "is of version 9.9.9" in result.stderr
    result = build(tmp_path / "dist", tmp_path / "main.c")
    assert result.returncode == 1
    assert "main.c" in result.stderr
