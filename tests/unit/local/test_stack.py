"""The local stack's way out, without its servers (tests/integration/test_local_stack.py has them)."""

from __future__ import annotations

import os
import signal

import pytest

from tidegate.local import guard, stack
from tidegate.local.kafka import EmbeddedKafka
from tidegate.local.postgres import EmbeddedPostgres
from tidegate.local.stack import LocalStack


@pytest.fixture
def without_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for server in (EmbeddedKafka, EmbeddedPostgres):
        monkeypatch.setattr(server, "start", lambda _: None)
        monkeypatch.setattr(server, "stop", lambda _: None)


@pytest.mark.usefixtures("without_servers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_directory_goes_leaves_no_half_of_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is removed whole, and then signals mean what they meant before."""

    def remove(directory: str) -> None:
        os.kill(os.getpid(), number)
        guard.remove(directory)

    monkeypatch.setattr(stack, "remove", remove)
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with LocalStack() as local:
        (local.directory / "data").mkdir()
    assert not local.directory.exists()
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.usefixtures("without_servers")
def test_ctrl_c_inside_leaves_nothing() -> None:
    """It is raised on, and the directory has gone."""
    local = LocalStack()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs do not listen to it
    try:
        with pytest.raises(KeyboardInterrupt), local:
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not local.directory.exists()
