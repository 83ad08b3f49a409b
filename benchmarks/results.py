"""RESULTS.md: one section per part. A part that runs replaces its own section and leaves the others."""

from __future__ import annotations

import datetime
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

FILE = Path(__file__).parent / "RESULTS.md"
_HEAD = """# What tidegate costs

Written by `uv run python -m benchmarks.worker`, `… benchmarks.batch` and `… benchmarks.dlq`; each part rewrites its own
section, so that parts can be run one by one (`--only throughput`). Brokers, databases, workers and producers share one
machine, and other work may run on it at the same time: figures are medians, and what a quiet machine would give is not guessed.
"""


@dataclass
class Section:
    """One part's outcome: tables, remarks, and targets with whether they are met."""

    name: str
    title: str
    lines: list[str] = field(default_factory=list)
    targets: list[tuple[str, str, bool]] = field(default_factory=list)
    seconds: float = 0.0  # that the part ran

    def text(self, *paragraph: str) -> None:
        self.lines += [*paragraph, ""]

    def table(self, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        self.lines.append("| " + " | ".join(head) + " |")
        self.lines.append("|" + "|".join("---" if i == 0 else "---:" for i in range(len(head))) + "|")
        self.lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
        self.lines.append("")

    def target(self, wanted: str, measured: str, met: bool) -> None:
        self.targets.append((wanted, measured, met))

    def render(self) -> str:
        module = sys.modules["__main__"].__spec__
        command = f"uv run python -m {module.name if module else 'benchmarks'} " + " ".join(sys.argv[1:])
        run = f"{_today()}, {machine()}, `{command.strip()}`, {self.seconds:.0f} s"
        lines = [f"## {self.title}", "", run, "", *self.lines]
        if self.targets:
            lines += ["| target | measured | |", "|---|---|---|"]
            lines += [f"| {t} | {m} | {'met' if met else '**not met**'} |" for t, m, met in self.targets]
            lines.append("")
        return "\n".join(lines)


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def machine() -> str:
    """Processors, memory, system and Python of this machine."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def write(section: Section, order: Sequence[str], file: Path = FILE) -> None:
    """Put the section into the file: its command's parts in their order, after those of other commands."""
    old = file.read_text() if file.exists() else ""
    sections = dict(re.findall(r"<!-- part: (\w+) -->\n(.*?)(?=<!-- part: |\Z)", old, re.DOTALL))
    sections[section.name] = section.render()
    names = [name for name in sections if name not in order] + [name for name in order if name in sections]
    body = [f"<!-- part: {name} -->\n{sections[name].strip()}\n" for name in names]
    file.write_text("\n".join([_HEAD, *body]))


def thousands(number: float) -> str:
    return f"{number:,.0f}".replace(",", " ")
