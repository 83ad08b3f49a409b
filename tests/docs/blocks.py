"""The fenced blocks of a Markdown file, each with the name that `<!-- run: NAME -->` above it gives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:<!-- run: (?P<name>[\w-]+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its name ("" when nobody named it), its language, its text."""

    name: str
    language: str
    text: str


def blocks(file: Path) -> list[Block]:
    """All blocks of a file, in order."""
    return [Block(m["name"] or "", m["language"], m["text"]) for m in _BLOCK.finditer(file.read_text())]
