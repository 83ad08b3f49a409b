"""Finds a Java that can run Kafka and Spark, or says how to get one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tidegate.errors import StackError

MINIMUM = 17
"""Kafka 4's broker and Spark 4 both ask for Java 17."""

_INSTALL = f"""\
Install it with one of:
  Debian, Ubuntu   sudo apt-get install openjdk-17-jre-headless
  Fedora, RHEL     sudo dnf install java-21-openjdk-headless
  macOS            brew install openjdk@21
or, if Java {MINIMUM} or newer is somewhere else on this machine, point to it:
  export JAVA_HOME=/path/to/java"""


def find_java(environ: Mapping[str, str] = os.environ) -> Path:
    """The `java` of JAVA_HOME, else of PATH, whichever is new enough first.

    Raises StackError that names what was found instead and how to install Java.
    """
    seen: list[str] = []
    for where, candidate in _candidates(environ):
        version = java_version(candidate)
        if version is not None and version >= MINIMUM:
            return candidate
        seen.append(f"  {where}: {candidate} " + ("does not run" if version is None else f"is Java {version}"))
    found = "\n".join(["found instead:", *seen]) if seen else "found no `java` in JAVA_HOME or on PATH"
    raise StackError(f"Kafka and Spark need Java {MINIMUM} or newer; {found}\n{_INSTALL}")


def _candidates(environ: Mapping[str, str]) -> list[tuple[str, Path]]:
    candidates = []
    if home := environ.get("JAVA_HOME"):
        candidates.append(("JAVA_HOME", Path(home) / "bin" / "java"))
    if found := shutil.which("java", path=environ.get("PATH", os.defpath)):
        candidates.append(("PATH", Path(found)))
    return candidates


def java_version(java: Path) -> int | None:
    """The feature release of a `java` (17 for "17.0.15", 8 for "1.8.0_392"); None when it does not run."""
    try:
        # 20 s: a cold start from a slow disk takes a few; macOS' stub without a Java answers at once with an error.
        said = subprocess.run([str(java), "-version"], capture_output=True, text=True, timeout=20, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(match[1]) if match else None
