"""Kafka's jars: resolved once by the Ivy that pyspark ships, kept in the user's cache, checked against `*.sha256` here.

A configuration is a named set of jars with one file `{name}.sha256` beside this module (the format of `sha256sum`).
It is both the
list of what belongs to the set and its checksums: a changed jar is found whether it changed on the way or in the cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.errors import StackError
from tidegate.local.java import find_java

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and what is happening."""

_SETTINGS = """\
<ivysettings>
  <settings defaultResolver="central"/>
  <caches defaultCacheDir="{cache}"/>
  <resolvers><ibiblio name="central" m2compatible="true"/></resolvers>
</ivysettings>
"""


@dataclass(frozen=True, slots=True)
class Dependency:
    """One module and the configurations of it that are wanted, as Ivy writes them."""

    organisation: str
    name: str
    revision: str
    wanted: str


CONFIGURATIONS: dict[str, tuple[Dependency, ...]] = {
    "broker": (
        Dependency("org.apache.kafka", "kafka_2.13", "4.3.1", "runtime,master"),
        # Without it the broker logs nothing, and a failed start says nothing.
        Dependency("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4", "runtime,master"),
    ),
    # What Spark's Kafka source needs beyond the jars that pyspark ships; kafka-clients is the one it was built with.
    "spark": (
        Dependency("org.apache.spark", "spark-sql-kafka-0-10_2.13", "4.2.0", "master"),
        Dependency("org.apache.spark", "spark-token-provider-kafka-0-10_2.13", "4.2.0", "master"),
        Dependency("org.apache.kafka", "kafka-clients", "3.9.2", "master"),
        Dependency("org.apache.commons", "commons-pool2", "2.13.1", "master"),
    ),
}


def cache_directory() -> Path:
    """TIDEGATE_CACHE, else the user's cache folder (XDG_CACHE_HOME is respected)."""
    if given := os.environ.get("TIDEGATE_CACHE"):
        return Path(given).expanduser()
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "tidegate"
    folder = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return folder / "tidegate"


def expected(configuration: str) -> dict[str, str]:
    """File name → SHA-256 in hex of every jar of a configuration."""
    pairs = (line.split() for line in Path(__file__).with_name(f"{configuration}.sha256").read_text().splitlines())
    return {name: digest for digest, name in pairs}


def home(configuration: str) -> Path:
    """Where a configuration's jars are or will be; another set of jars is another folder."""
    fingerprint = hashlib.sha256(repr(sorted(expected(configuration).items())).encode()).hexdigest()[:12]
    return cache_directory() / "jars" / f"{configuration}-{fingerprint}"


def damages(configuration: str) -> list[str]:
    """What is wrong with the cached jars, a sentence per jar; empty when all are there and unchanged."""
    return _compare(home(configuration), expected(configuration))


def ensure(configuration: str, progress: Progress = lambda done, total, what: None) -> Path:
    """The folder with exactly the jars of a configuration, resolved first if they are missing or damaged.

    Safe when several processes do it at once; needs the network only when there is something to resolve.
    Raises StackError when the jars cannot be had.
    """
    folder = home(configuration)
    if not damages(configuration):
        return folder
    with _locked(folder.parent):
        if damages(configuration):  # nobody else has resolved them while we waited
            _resolve(configuration, folder, progress)
    return folder


def _compare(folder: Path, wanted: dict[str, str]) -> list[str]:
    there = {file.name for file in folder.glob("*.jar")}
    problems = [f"{name} is missing" for name in wanted if name not in there]
    problems += [f"{name} does not belong there" for name in sorted(there - wanted.keys())]
    for name in sorted(there & wanted.keys()):
        with (folder / name).open("rb") as jar:
            digest = hashlib.file_digest(jar, "sha256").hexdigest()
        if digest != wanted[name]:
            problems.append(f"{name} has the SHA-256 {digest}, not {wanted[name]}")
    return problems


@contextmanager
def _locked(parent: Path) -> Iterator[None]:
    parent.mkdir(parents=True, exist_ok=True)
    with (parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _resolve(configuration: str, folder: Path, progress: Progress) -> None:
    """1. let Ivy fetch into a private folder  2. compare with the checksums  3. move into place in one step"""
    java, wanted = find_java(), expected(configuration)
    with tempfile.TemporaryDirectory(prefix=f".{configuration}-", dir=folder.parent) as name:
        work = Path(name)
        _run_ivy(java, configuration, work, len(wanted), progress)
        problems = _compare(work / configuration, wanted)
        if problems:
            raise StackError(f"the jars that were downloaded are not the expected ones:\n  {_some(problems)}")
        if folder.exists():
            folder.rename(work / "damaged")
        (work / configuration).rename(folder)


def _run_ivy(java: Path, configuration: str, work: Path, jars: int, progress: Progress) -> None:
    # Ivy's cache is private too: a half-filled ~/.m2 or ~/.ivy2 (a POM without its jar) makes resolution fail.
    (work / "settings.xml").write_text(_SETTINGS.format(cache=work / "ivy"))
    (work / "ivy.xml").write_text(_module(configuration))
    pattern = f"{work}/[conf]/[artifact]-[revision].[ext]"
    options = ["-settings", "settings.xml", "-ivy", "ivy.xml", "-retrieve", pattern, "-types", "jar", "bundle"]
    command = [str(java), *_proxy(), "-jar", str(find_ivy()), *options]
    said: list[str] = []
    found = fetched = 0
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as ivy:
        try:
            assert ivy.stdout is not None
            for line in ivy.stdout:
                said.append(line.strip())
                found += line.startswith("\tfound ")
                fetched += "[SUCCESSFUL ]" in line and not re.search(r"!\S+\.(pom|xml)", line)
                progress(min(found, jars) + min(fetched, jars), 2 * jars, "downloading" if fetched else "looking up")
        except BaseException:
            ivy.kill()
            raise
    if ivy.returncode != 0:
        problems = [line for line in said if re.search(r"UNRESOLVED|not found|[Ee]xception|ERRORS|WARN", line)]
        raise StackError(
            f"cannot download Kafka's jars (this needs the network once; a proxy is taken from HTTPS_PROXY):\n  "
            f"{_some(problems or said[-8:])}"
        )


def _some(lines: list[str], most: int = 8) -> str:
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return "\n  ".join([*lines[:most], *more])


def _module(configuration: str) -> str:
    dependencies = "\n".join(
        f'    <dependency org="{d.organisation}" name="{d.name}" rev="{d.revision}"'
        f' conf="{configuration}->{d.wanted}"/>'
        for d in CONFIGURATIONS[configuration]
    )
    return (
        '<ivy-module version="2.0">\n  <info organisation="tidegate" module="jars"/>\n'
        f'  <configurations><conf name="{configuration}"/></configurations>\n'
        f"  <dependencies>\n{dependencies}\n  </dependencies>\n</ivy-module>\n"
    )


def _proxy() -> list[str]:
    """Java does not read HTTPS_PROXY; say it in its own words."""
    proxy = urlsplit(os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy") or "")
    if not proxy.hostname:
        return []
    return [f"-Dhttps.proxyHost={proxy.hostname}", f"-Dhttps.proxyPort={proxy.port or 8080}"]


def find_ivy() -> Path:
    """The Ivy jar of the installed pyspark, found without importing it (that costs a second).

    Raises StackError when there is none.
    """
    spec = importlib.util.find_spec("pyspark")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if found := sorted(Path(place).glob("jars/ivy-*.jar")):
            return found[-1]
    raise StackError(
        "cannot find jars/ivy-*.jar in the installed pyspark; reinstall it:  uv sync --reinstall-package pyspark"
    )


def listed(configuration: str) -> str:
    """The jars that are there, as Spark's settings take them: with commas between."""
    return ",".join(map(str, sorted(home(configuration).glob("*.jar"))))


def size(configuration: str) -> int:
    """Bytes of the cached jars."""
    return sum(file.stat().st_size for file in home(configuration).glob("*.jar"))
