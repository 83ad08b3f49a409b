"""`tidegate dlq console` as a command: it answers soon, says where, ends when told to, and refuses to be open to everybody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.console_scene import TOKENS, scene, some_failures

pytestmark = pytest.mark.slow


def command(folder: Path, *options: str, console: dict[str, Any] | None = None) -> list[str]:
    file = folder / "pipeline.json"
    dead_letters = {"index": f"sqlite:///{folder / 'index.sqlite'}", "console": console or {}}
    file.write_text(json.dumps({"pipelineId": "flights", "deadLetters": dead_letters}))
    return [sys.executable, "-m", "tidegate.cli.main", "dlq", "console", str(file), *options]


def test_it_loads_no_engine(tmp_path: Path) -> None:
    """From the command to the first page none of what takes long to import is: it would be most of the start (measured by
    `benchmarks.dlq`). SIGTERM ends it."""
    with scene(tmp_path) as opened:
        opened.prepare().write(*some_failures())
    imports = tmp_path / "imports"
    environment = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    with (
        imports.open("w") as listed,
        subprocess.Popen(
            command(tmp_path, "--port", "0"), stdout=subprocess.PIPE, stderr=listed, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("the console of flights answers on http://127.0.0.1:")
        with urllib.request.urlopen(said.split()[-1]) as page:
            assert b"open dead letters" in page.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in imports.read_text().splitlines()}
    assert "fastapi" in loaded
    assert not loaded & {"faust", "aiokafka", "pyspark", "boto3", "pandas"}


def test_without_tokens_it_stays_on_loopback(tmp_path: Path) -> None:
    """`--host` beyond this machine without tokens is refused with the way out, before anything listens."""
    done = subprocess.run(command(tmp_path, "--host", "0.0.0.0"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--host: the console would answer everybody who can reach it" in done.stderr
    assert "deadLetters.console.tokens" in done.stderr


def test_with_tokens_it_listens_elsewhere(tmp_path: Path) -> None:
    """Then whoever asks needs one, also on loopback."""
    tokens = [{"name": "ada", "role": "viewer", "token": TOKENS["viewer"]}]
    started = command(tmp_path, "--host", "0.0.0.0", "--port", "0", console={"tokens": tokens})
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        request = urllib.request.Request(f"{url}/api/me")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(request)
        request.add_header("authorization", f"Bearer {TOKENS['viewer']}")
        with urllib.request.urlopen(request) as answer:
            assert json.loads(answer.read()) == {"name": "ada", "role": "viewer"}
        process.terminate()


def test_a_port_that_is_taken_is_said(tmp_path: Path) -> None:
    """With the setting, the address, and the way out."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(command(tmp_path, "--port", port), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"'127.0.0.1:{port}'" in done.stderr
    assert "--port 0" in done.stderr
