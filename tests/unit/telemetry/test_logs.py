"""Logs: how a line looks, whose logging takes the same way, and what never shows."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tidegate.telemetry.logs import Format, Level, configure_logging, logging_config
from tidegate.telemetry.redact import Redact


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def configured(level: Level = "info", format: Format = "console", stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    configure_logging(level, format, stream=stream)
    return stream


def test_console_line() -> None:
    """A console line is time, level, event, logger and fields in the order in which they were given."""
    stream = configured()
    structlog.get_logger("dlq.publisher").info("dlq.published", topic="flights", offset=42, stage="decode")
    time_, _, rest = stream.getvalue().partition(" ")
    assert time_.endswith("Z")
    assert rest == "[info] dlq.published [dlq.publisher] topic=flights offset=42 stage=decode\n"


def test_json_line() -> None:
    """A JSON line is one object with time, level, event, logger and the fields with their types."""
    stream = configured(format="json")
    structlog.get_logger("dlq.publisher").warning("dlq.published", topic="航班", offset=42)
    line = json.loads(stream.getvalue())
    assert list(line)[:3] == ["timestamp", "level", "event"]
    del line["timestamp"]
    assert line == {
        "level": "warning", "event": "dlq.published", "logger": "dlq.publisher", "topic": "航班", "offset": 42,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["faust.worker", "aiokafka.consumer", "mode.services"])
def test_stdlib_logging(name: str) -> None:
    """What Faust, mode and aiokafka log comes out in the same form."""
    stream = configured(format="json")
    logging.getLogger(name).info("Assigned %d partitions of %s", 3, "flights")
    line = json.loads(stream.getvalue())
    assert (line["event"], line["logger"], line["level"]) == ("Assigned 3 partitions of flights", name, "info")


@pytest.mark.parametrize("format", ["console", "json"])
def test_exceptions(format: Format) -> None:
    """An exception comes with its traceback, plain, from structlog and from stdlib logging."""
    for log in (structlog.get_logger("ours"), logging.getLogger("theirs")):
        stream = configured(format=format)
        try:
            raise ValueError("a bad value")
        except ValueError:
            log.exception("it.failed")
        assert "Traceback (most recent call last)" in stream.getvalue()
        assert "ValueError: a bad value" in stream.getvalue()


def test_level() -> None:
    """Below the level nothing is written, by anyone."""
    stream = configured("warning")
    structlog.get_logger("ours").info("not.shown")
    logging.getLogger("theirs").info("not shown")
    assert stream.getvalue() == ""
    stream = configured("debug")
    structlog.get_logger("ours").debug("shown")
    assert "shown" in stream.getvalue()


def test_configured_twice() -> None:
    """Configuring again replaces what was: no line comes out twice, and loggers that exist follow."""
    log = structlog.get_logger("ours")
    first, second = configured(), configured(format="json")
    log.info("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


def test_colours_only_on_a_terminal() -> None:
    """Colours are for terminals: not in files, not in JSON."""
    for stream, format, coloured in [
        (Terminal(), "console", True),
        (io.StringIO(), "console", False),
        (Terminal(), "json", False),
    ]:
        configured(format=format, stream=stream)  # type: ignore[arg-type]  # any of the formats, by parameter
        structlog.get_logger("ours").info("event")
        assert ("\x1b[" in stream.getvalue()) is coloured


def test_faust_takes_the_same_configuration() -> None:
    """Faust's worker, given our dictionary as `logging_config`, logs in our form."""
    from mode.utils.logging import setup_logging

    stream = io.StringIO()
    setup_logging(loglevel="INFO", logging_config=logging_config("info", "json", stream=stream))
    logging.getLogger("faust").info("ready")
    assert json.loads(stream.getvalue())["event"] == "ready"


SECRET = "s3cr3t-value"


class Leaky:
    def __repr__(self) -> str:
        return f"Leaky(password='{SECRET}')"


LEAKS = {
    "field": lambda log: log.info("connecting", password=SECRET),
    "dotted": lambda log: log.info("connecting", **{"sasl.plain.password": SECRET}),
    "nested": lambda log: log.info("connecting", kafka={"hosts": [{"sasl_plain_password": SECRET}]}),
    "number": lambda log: log.info("connecting", token=12345678, secret=SECRET),
    "url": lambda log: log.info("connecting", url=f"postgresql://flights:{SECRET}@db:5432/x"),
    "odd-url": lambda log: log.info("connecting", url=f"postgresql://flights:p@{SECRET}@db:5432/x"),
    "text": lambda log: log.info(f"connecting with password={SECRET} to db"),
    "json-text": lambda log: log.info(f'config {{"apiKey": "{SECRET}"}}'),
    "header": lambda log: log.info(f"Authorization: Bearer {SECRET}"),
    "jaas": lambda log: log.info(f'sasl.jaas.config=x required username="u" password="{SECRET}";'),
    "repr": lambda log: log.info("config", config=Leaky()),
    "error": lambda log: log.info("failed", error=ConnectionError(f"password={SECRET} refused")),
    "resolved": lambda log: log.info("anything", note=f"…{SECRET}…"),
}


@pytest.mark.parametrize("format", ["console", "json"])
@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS.keys())
def test_secrets(leak: object, format: Format) -> None:
    """A secret never shows, however it gets into a line, and the mask says that there was one."""
    stream = io.StringIO()
    known = [SECRET] if leak is LEAKS["resolved"] else []
    configure_logging("info", format, secrets=known, stream=stream)
    leak(structlog.get_logger("ours"))  # type: ignore[operator]  # one of several calls, by parameter
    assert SECRET not in stream.getvalue()
    assert "12345678" not in stream.getvalue()
    assert "***" in stream.getvalue()


def test_secret_in_a_traceback() -> None:
    """A secret in an exception's message is masked in the traceback, too."""
    stream = configured()
    try:
        raise ConnectionError(f"cannot connect to postgresql://u:{SECRET}@db/x")
    except ConnectionError:
        logging.getLogger("psycopg").exception("failed")
    assert SECRET not in stream.getvalue()
    assert "postgresql://u:***@db/x" in stream.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:6060/metrics",
        "postgresql://flights@db:5432/x",
        "kafka://broker:9092,broker:9093",
        "Unexpected token: } in JSON",
        "12:30:05 batch of 8192 records, offset=42 key=JFK",
        "a@b.example wrote http://x/y",
    ],
)
def test_harmless_text(text: str) -> None:
    """Text without a secret stays as it is."""
    assert Redact().text(text) == text


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    """Redaction takes any text, and masking twice masks no more."""
    once = Redact([SECRET]).text(text)
    assert Redact([SECRET]).text(once) == once


def test_long_text_is_quick() -> None:
    """A megabyte without a space is redacted in well under a second."""
    began = time.perf_counter()
    Redact([SECRET]).text("x" * 1_000_000)
    assert time.perf_counter() - began < 1


def test_short_secrets_are_left() -> None:
    """A known secret of fewer than four characters is not searched for: it would blot out every line."""
    assert Redact(["a", "1"]).text("a plain line 1") == "a plain line 1"
