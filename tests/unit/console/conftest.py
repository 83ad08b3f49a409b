from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console_scene import Scene, scene, some_failures


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Scene]:
    """A console without tokens over sixty dead letters."""
    with scene(tmp_path) as opened:
        opened.prepare().write(*some_failures())
        yield opened


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Scene]:
    """The same with a token for each role."""
    with scene(tmp_path, tokens=True) as opened:
        opened.prepare().write(*some_failures())
        yield opened
