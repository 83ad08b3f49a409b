"""The broker that the tests of one run share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.providers.kafka import Broker
from tidegate.local.kafka import EmbeddedKafka


def test_a_broker_that_has_ended_says_why(tmp_path: Path) -> None:
    """Each test that asks for it fails at once with its last words, instead of waiting for a server that is gone."""
    server = EmbeddedKafka(tmp_path)
    server.log.write_text("ERROR LogDirFailureChannel: No space left on device\n")
    with pytest.raises(pytest.fail.Exception, match=r"has ended; .* ends with:\n  ERROR .*No space left on device"):
        Broker("127.0.0.1:1", server).require_alive()


def test_a_broker_of_somebody_else_is_asked_and_not_watched() -> None:
    """An address that was given has no process here."""
    Broker("127.0.0.1:1").require_alive()
