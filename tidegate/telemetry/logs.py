"""Logs: dotted event names with fields, through structlog; Faust's and aiokafka's stdlib logging by the same way.

    log = structlog.get_logger(__name__)
    log.info("dlq.published", topic="flights", offset=42, stage="decode")

1. collect   level, logger, time (UTC); exceptions as text
2. redact    secrets masked, in fields and in text
3. render    `console`: one line for people, colours only on a terminal; `json`: one object per line
"""

from __future__ import annotations

import logging.config
import sys
from collections.abc import Iterable
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from tidegate.telemetry.redact import Redact

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]


def configure_logging(
    level: Level = "info", format: Format = "console", *, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Set up structlog and stdlib logging of this process, on stderr unless `stream` is given.

    Calling it again replaces what was. `secrets`: resolved secret values, masked wherever they turn up.
    """
    logging.config.dictConfig(logging_config(level, format, secrets=secrets, stream=stream))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_collect(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def logging_config(
    level: Level = "info", format: Format = "console", *, secrets: Iterable[str] = (), stream: TextIO | None = None
) -> dict[str, Any]:
    """The same for `logging.config.dictConfig`: Faust's setting `logging_config`; else its worker uses its own."""
    stream = stream or sys.stderr
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "tidegate": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _collect(),
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    Redact(secrets),
                    *_render(format, colors=stream.isatty()),
                ],
            }
        },
        "handlers": {"tidegate": {"class": "logging.StreamHandler", "stream": stream, "formatter": "tidegate"}},
        "root": {"level": level.upper(), "handlers": ["tidegate"]},
    }


def _collect() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _render(format: Format, *, colors: bool) -> list[Processor]:
    if format == "json":
        return [_plain_keys, structlog.processors.JSONRenderer(ensure_ascii=False)]
    return [
        structlog.dev.ConsoleRenderer(
            colors=colors,
            pad_event_to=0,
            pad_level=False,
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
    ]


def _plain_keys(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Time, level and event first, for people who read JSON lines."""
    first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
    return {**first, **event}
