"""Files on the disk that are there whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa


def replace_file(target: Path, data: bytes | pa.Buffer) -> None:
    """Write beside it and rename: a reader sees the old file or the new one, also after a power cut. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.part")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
