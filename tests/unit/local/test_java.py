"""Finding a Java that can run Kafka."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.errors import StackError
from tidegate.local.java import find_java, java_version


def _java(folder: Path, version: str) -> Path:
    """A `java` that says it is `version`."""
    binary = folder / "bin" / "java"
    binary.parent.mkdir(parents=True)
    binary.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    binary.chmod(0o755)
    return binary


@pytest.mark.parametrize(("said", "release"), [("17.0.15", 17), ("1.8.0_392", 8), ("21", 21), ("26-ea", 26)])
def test_the_feature_release_is_read_from_any_form_of_version(tmp_path: Path, said: str, release: int) -> None:
    """Old releases are 1.8, new ones 17 or 26-ea."""
    assert java_version(_java(tmp_path, said)) == release


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    """JAVA_HOME is what the user said; PATH is what happens to be there."""
    home, other = _java(tmp_path / "home", "17.0.1"), _java(tmp_path / "other", "21.0.1")
    assert find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(other.parent)}) == home


def test_an_old_java_home_does_not_hide_a_new_java_on_path(tmp_path: Path) -> None:
    """Whichever is new enough first is taken."""
    _java(tmp_path / "home", "11.0.2")
    other = _java(tmp_path / "other", "21.0.1")
    assert find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(other.parent)}) == other


def test_without_java_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    """Every system's way, and the way of a Java that is already somewhere."""
    with pytest.raises(StackError) as error:
        find_java({"PATH": str(tmp_path)})
    for way_out in (
        "found no `java`",
        "apt-get install openjdk-17",
        "brew install",
        "dnf install",
        "export JAVA_HOME=",
    ):
        assert way_out in str(error.value)


def test_a_java_that_is_too_old_or_broken_is_named(tmp_path: Path) -> None:
    """The error shows where the wrong Java is and what it is."""
    old = _java(tmp_path / "old", "11.0.2")
    with pytest.raises(StackError) as error:
        find_java({"JAVA_HOME": str(tmp_path / "gone"), "PATH": str(old.parent)})
    assert f"JAVA_HOME: {tmp_path}/gone/bin/java does not run" in str(error.value)
    assert f"PATH: {old} is Java 11" in str(error.value)
