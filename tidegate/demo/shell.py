"""Commands of `tidegate` on the demo's pipeline file, run as a person would in the directory of the file."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tidegate.errors import StackError

PROGRAM = (sys.executable, "-c", "from tidegate.cli.main import run; run()")
"""`tidegate`, also where it is not on the PATH."""
_UNEXPECTED = 2  # a command's exit code from which on it could not do its work at all


class Shell:
    """`file`: the pipeline file. `environment`: of the commands."""

    def __init__(self, console: Console, file: Path, environment: Mapping[str, str]) -> None:
        self._console, self._file, self._environment = console, file, environment

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command with `--json`, unseen. Raises StackError when it prints nothing."""
        command = [*PROGRAM, *words, self._file.name, "--json"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self._environment, cwd=self._file.parent
        )
        if done.returncode != 0 and not done.stdout:
            raise StackError(f"tidegate {' '.join(words)} failed:\n{done.stderr}")
        return done

    def show(self, words: Sequence[str], *options: str) -> bool:
        """Run a command in front of the person: what they could type, and all that it says. True: its exit code is 0.

        Raises StackError when it could not do its work at all.
        """
        self.say(words, *options)
        command = [*PROGRAM, *words, self._file.name, *options]
        done = subprocess.run(command, check=False, env=self._environment, cwd=self._file.parent)
        if done.returncode >= _UNEXPECTED or done.returncode < 0:
            raise StackError(f"tidegate {' '.join(words)} ended with code {done.returncode}")
        return done.returncode == 0

    def say(self, words: Sequence[str], *options: str) -> None:
        """Print the command alone."""
        self._console.print()
        self._console.print(typed("tidegate", *words, self._file.name, *options), soft_wrap=True)
        self._console.file.flush()  # the command writes to the same place


def typed(*words: str) -> Text:
    """A command as it is typed in a shell."""
    return Text("$ " + " ".join(map(_quoted, words)), style="bold cyan")


def _quoted(word: str) -> str:
    """SQL has single quotes: then double ones around it are easier to read than what shlex makes."""
    if "'" in word and not set(word) & set('"$`\\!'):
        return f'"{word}"'
    return shlex.quote(word)
