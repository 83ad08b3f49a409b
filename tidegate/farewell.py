"""The end of a process that nothing can hold up."""

from __future__ import annotations

import os
import sys
import threading
from typing import NoReturn

_LAST_WORDS = 1.0  # seconds that the last message may take: nobody may be reading it


def end(code: int, text: str) -> NoReturn:
    """Say why, and end the process at once."""
    speaker = threading.Thread(target=_say, args=(text,), daemon=True)
    speaker.start()
    speaker.join(_LAST_WORDS)
    os._exit(code)


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
