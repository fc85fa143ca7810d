"""Logging to stderr, as text or as one JSON object a line. The text of an exception is left out, since it may quote
memory: its type and where it was raised are kept."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class LogSettingsError(ValueError):
    """A variable about logs is wrong; the message names it."""


def set_up_logging(environment: Mapping[str, str]) -> None:
    """Log as AGENTMEMORY_LOG_FORMAT (`text` or `json`) and AGENTMEMORY_LOG_LEVEL say. Raises LogSettingsError."""
    style = environment.get("AGENTMEMORY_LOG_FORMAT") or "text"
    if style not in ("text", "json"):
        raise LogSettingsError("AGENTMEMORY_LOG_FORMAT is text or json")
    level = (environment.get("AGENTMEMORY_LOG_LEVEL") or "INFO").upper()
    if level not in _LEVELS:
        raise LogSettingsError(f"AGENTMEMORY_LOG_LEVEL is one of {', '.join(_LEVELS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # At their finest, these would write out what passes through them.
    for name in ("asyncio", "aiohttp", "kubernetes", "redis"):
        logging.getLogger(name).setLevel(max(logging.INFO, logging.getLevelName(level)))
    # It tells of every call of every handler.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)


def describe_exception(error: BaseException) -> str:
    """Types and places, outermost last, as a traceback has them; no text of any exception."""
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        state = getattr(current, "sqlstate", None)
        name = f"{type(current).__module__}.{type(current).__qualname__}" + (f" [{state}]" if state else "")
        parts.append("".join(traceback.format_tb(current.__traceback__)) + name)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\n".join(reversed(parts))


class _SafeFormatter(logging.Formatter):
    def formatException(self, ei: object) -> str:
        error = ei[1] if isinstance(ei, tuple) else None
        return describe_exception(error) if isinstance(error, BaseException) else ""


class TextFormatter(_SafeFormatter):
    """`2026-11-22T12:00:00.000Z WARNING agentmemory_engine.consolidation: …`"""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _timestamp(record)


class JsonFormatter(_SafeFormatter):
    """One JSON object a line: time, level, logger, message and, of an exception, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _timestamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def _timestamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
