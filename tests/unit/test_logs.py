"""Logging: one line a record, and never the text of an exception, which may quote memory."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from agentmemory_engine.logs import JsonFormatter, LogSettingsError, TextFormatter, set_up_logging

SECRET = "what the agent said"


class DatabaseError(Exception):
    sqlstate = "22003"


def failed_record() -> logging.LogRecord:
    try:
        try:
            raise DatabaseError(SECRET)
        except DatabaseError as error:
            raise KeyError(SECRET) from error
    except KeyError:
        return logging.LogRecord("a.b", logging.ERROR, "x.py", 1, "batch %d failed", (7,), sys.exc_info())


def test_json_is_one_object_a_line() -> None:
    line = JsonFormatter().format(failed_record())
    assert "\n" not in line
    record = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == ("ERROR", "a.b", "batch 7 failed")
    assert record["time"].endswith("Z")


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_an_exception_is_told_by_type_and_place_alone(formatter: logging.Formatter) -> None:
    text = formatter.format(failed_record())
    assert SECRET not in text
    assert "builtins.KeyError" in text and "DatabaseError [22003]" in text
    assert "test_logs.py" in text


def test_an_exception_in_a_circle_is_told_once() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    record = logging.LogRecord("a", logging.ERROR, "x.py", 1, "x", (), (ValueError, first, None))
    assert TextFormatter().format(record).count("builtins.ValueError") == 2


@pytest.mark.parametrize("environment", [{"AGENTMEMORY_LOG_FORMAT": "xml"}, {"AGENTMEMORY_LOG_LEVEL": "LOUD"}])
def test_a_wrong_setting_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(LogSettingsError, match=next(iter(environment))):
        set_up_logging(environment)
