"""The cache of jars: complete, unchanged, and shared by processes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tidegate.errors import StackError
from tidegate.local import jars

# A stand-in for Java that "downloads" two jars: it prints what Ivy prints and writes where Ivy is told to.
_FAKE_JAVA = """#!/bin/sh
[ "$1" = "-version" ] && { echo 'openjdk version "17.0.1"' >&2; exit 0; }
echo run >> "$FAKE_JAVA_RUNS"
sleep 0.3
mkdir -p broker
printf '\\tfound a#one;1 in central\\n\\tfound a#two;1 in central\\n'
printf one > broker/one-1.jar; printf '\\t[SUCCESSFUL ] a#one;1!one.jar (1ms)\\n'
printf "$FAKE_JAVA_TWO" > broker/two-1.jar; printf '\\t[SUCCESSFUL ] a#two;1!two.jar (1ms)\\n'
exit "$FAKE_JAVA_EXIT"
"""
_EXPECTED = {f"{name}-1.jar": hashlib.sha256(name.encode()).hexdigest() for name in ("one", "two")}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, two expected jars and the stand-in; returns the file with a line for each time it ran."""
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(_FAKE_JAVA)
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FAKE_JAVA_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("FAKE_JAVA_TWO", "two")
    monkeypatch.setenv("FAKE_JAVA_EXIT", "0")
    monkeypatch.setattr(jars, "expected", lambda configuration: _EXPECTED)
    return tmp_path / "runs"


@pytest.mark.slow
def test_jars_are_fetched_once_and_then_taken_from_the_cache(runs: Path) -> None:
    """The second call starts no Java, so it works without a network."""
    seen: list[tuple[int, int, str]] = []
    folder = jars.ensure("broker", lambda done, total, what: seen.append((done, total, what)))
    assert sorted(file.name for file in folder.iterdir()) == ["one-1.jar", "two-1.jar"]
    assert seen[-1] == (4, 4, "downloading")
    assert jars.ensure("broker") == folder
    assert runs.read_text() == "run\n"


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["changed", "missing", "foreign"])
def test_a_damaged_cache_is_found_and_mended(runs: Path, damage: str) -> None:
    """A jar that changed, vanished or does not belong there makes the whole set new."""
    folder = jars.ensure("broker")
    if damage == "changed":
        (folder / "one-1.jar").write_text("evil")
    elif damage == "missing":
        (folder / "one-1.jar").unlink()
    else:
        (folder / "three.jar").write_text("three")
    assert len(jars.damages("broker")) == 1
    assert jars.ensure("broker") == folder
    assert jars.damages("broker") == []
    assert runs.read_text() == "run\nrun\n"


@pytest.mark.slow
def test_a_jar_that_changed_on_the_way_is_refused(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was downloaded must have the checksums that came with the code; nothing is left in the cache."""
    monkeypatch.setenv("FAKE_JAVA_TWO", "evil")
    with pytest.raises(StackError, match=r"two-1\.jar has the SHA-256"):
        jars.ensure("broker")
    assert [file.name for file in jars.home("broker").parent.iterdir()] == [".lock"]


@pytest.mark.slow
def test_a_failed_download_says_so_and_leaves_nothing_half(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the network and the proxy variable."""
    monkeypatch.setenv("FAKE_JAVA_EXIT", "1")
    with pytest.raises(StackError, match=r"cannot download Kafka's jars .*HTTPS_PROXY"):
        jars.ensure("broker")
    assert [file.name for file in jars.home("broker").parent.iterdir()] == [".lock"]


@pytest.mark.slow
def test_ctrl_c_while_they_are_fetched_leaves_nothing_half(runs: Path) -> None:
    """Neither a folder of the cache nor the Java that fills it; the next try fetches them."""

    def interrupted(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    others = psutil.Process().children(recursive=True)  # servers of other tests
    with pytest.raises(KeyboardInterrupt):
        jars.ensure("broker", interrupted)
    assert [file.name for file in jars.home("broker").parent.iterdir()] == [".lock"]
    assert set(psutil.Process().children(recursive=True)) <= set(others)
    assert sorted(file.name for file in jars.ensure("broker").iterdir()) == ["one-1.jar", "two-1.jar"]


@pytest.mark.slow
def test_two_processes_at_once_fetch_once(runs: Path) -> None:
    """The one that comes second waits and finds the work done."""
    script = f"from tidegate.local import jars; jars.expected = lambda c: {_EXPECTED!r}; jars.ensure('broker')"
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(30) for process in both] == [0, 0]
    assert runs.read_text() == "run\n"


def test_the_cache_respects_the_users_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TIDEGATE_CACHE, then XDG_CACHE_HOME, then the system's usual place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("TIDEGATE_CACHE", raising=False)
    assert jars.cache_directory() == tmp_path / "xdg" / "tidegate"
    monkeypatch.setenv("TIDEGATE_CACHE", str(tmp_path / "mine"))
    assert jars.cache_directory() == tmp_path / "mine"


def test_a_proxy_is_said_in_javas_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Java does not read HTTPS_PROXY itself."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert jars._proxy() == ["-Dhttps.proxyHost=proxy.example", "-Dhttps.proxyPort=3128"]


def test_every_expected_jar_has_one_checksum_and_ivy_is_found() -> None:
    """The list that comes with the code is well-formed and holds the broker; Ivy is there without pyspark's import."""
    for configuration in jars.CONFIGURATIONS:
        assert all(name.endswith(".jar") and len(digest) == 64 for name, digest in jars.expected(configuration).items())
    assert "kafka_2.13-4.3.1.jar" in jars.expected("broker")
    assert jars.find_ivy().exists()
