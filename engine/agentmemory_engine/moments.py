"""Times that are named in a query, in English: "on the evening of the 14th", "around 21:38 on April 11".

What is not certain is read as people mean it: a day without a year is the last such day that the agent has lived, a
weekday the last one there was. A time of day counts only beside a day.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import islice

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
           "december")  # fmt: skip
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTH = "(?P<month>" + "|".join(f"{name[:3]}(?:{name[3:]})?" if name != "may" else name for name in _MONTHS) + ")"
_YEAR = r"(?:,?\s+(?P<year>(?:19|20)\d\d))?"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_CLOCK = re.compile(r"\b(?P<hour>[0-2]?\d):(?P<minute>[0-5]\d)\b(?:\s?(?P<half>[ap])\.?m\b)?"
                    r"|\b(?P<whole>1?\d)\s?(?P<half_>[ap])\.?m\b|\b(?P<word>noon|midnight)\b")  # fmt: skip
_OFFSET = re.compile(r"\b(?P<count>half an|an|\d{1,3})\s+(?P<unit>hour|minute)s?\s+(?P<side>after|past|before)\s*$")
_PARTS = {
    "morning": (5.0, 12.0), "afternoon": (12.0, 18.0), "evening": (17.0, 22.0), "tonight": (18.0, 29.0),
    "last night": (18.0, 29.0), "night": (21.0, 29.0),
}  # fmt: skip
"""Hours from midnight; a night ends in the morning after."""
_PART = re.compile(r"\b(" + "|".join(_PARTS) + r")\b")
_LONGEST_QUERY = 500
"""Characters in which times are looked for."""
_MOST = 8
"""Days, and times of day, that are taken from one query."""
_YEARS = range(2, 9999)
"""Those in which every moment can be reckoned with, whatever the time zone."""
_MINUTES, _HALF_HOUR, _HOUR, _HOURS = 600.0, 1800.0, 3600.0, 21_600.0


_LOOKED_BACK = 1200
"""Years, or months, in which a day is looked for that the agent may have lived."""


@dataclass(frozen=True)
class Span:
    """Seconds since the epoch. Events outside count less by a factor of e every `slack` seconds."""

    start: float
    end: float
    slack: float


@dataclass(frozen=True)
class Life:
    """When the agent lived: its first and its last event, and now; all in the agent's time zone."""

    first: datetime
    last: datetime
    now: datetime

    @classmethod
    def between(cls, first: float, last: float, now: datetime, zone: tzinfo) -> Life:
        """From seconds since the epoch."""
        return cls(_local(first, zone), _local(last, zone), now.astimezone(zone))

    def had(self, day: date) -> bool:
        """Whether there may be events of this day."""
        return self.first.date() <= day <= max(self.last.date(), self.first.date())


def _local(moment: float, zone: tzinfo) -> datetime:
    """The nearest moment to this one that can be reckoned with."""
    return datetime.fromtimestamp(min(max(moment, _EARLIEST), _LATEST), zone)


_EARLIEST, _LATEST = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (_YEARS[0], _YEARS[-1]))


@dataclass(frozen=True)
class _Days:
    """The days from `first` up to and including `last`."""

    first: date
    last: date
    slack: float = _HOUR


def find_spans(query: str, life: Life) -> list[Span]:
    """The times that a query names; none where it names none, or none that can be."""
    text = query[:_LONGEST_QUERY].lower()
    found = list(islice(_exact(text, life), _MOST))
    named = (one for pattern, read in _READERS for match in pattern.finditer(text) if (one := read(match, life)))
    days = list(islice(dict.fromkeys(named), _MOST))
    if not days:
        return found
    clocks = _clocks(text)
    part = _PART.search(text)
    zone = life.now.tzinfo or UTC
    for one in days:
        if clocks:
            found += [_around(one.first, first, last, zone) for first, last in clocks]
        elif part is not None:
            found.append(_part_of(one.first, *_PARTS[part[1]], zone))
        else:
            found.append(Span(_moment(one.first, 0.0, zone), _moment(one.last, 24.0, zone), one.slack))
    return found


def _around(day: date, first: float, last: float, zone: tzinfo) -> Span:
    return Span(_moment(day, first, zone), _moment(day, last, zone), _MINUTES)


def _part_of(day: date, first: float, last: float, zone: tzinfo) -> Span:
    return Span(_moment(day, first, zone), _moment(day, last, zone), _HALF_HOUR)


def _moment(day: date, hours: float, zone: tzinfo) -> float:
    """So many hours by the clock after a day began."""
    whole = day + timedelta(days=int(hours // 24))
    minutes = round(hours % 24 * 60)
    return datetime.combine(whole, time(minutes // 60, minutes % 60), zone).timestamp()


def _clocks(text: str) -> list[tuple[float, float]]:
    """Times of day in hours; two of them that follow one another are a range."""
    named = (hours for match in _CLOCK.finditer(text) if (hours := _hours(match, text)) is not None)
    found = list(islice(named, _MOST))
    if len(found) == 2 and found[0] < found[1]:
        return [(found[0], found[1])]
    return [(one, one) for one in found]


def _hours(match: re.Match[str], text: str) -> float | None:
    if match["word"]:
        hours = 0.0 if match["word"] == "midnight" else 12.0
    else:
        hours = int(match["hour"] or match["whole"]) + int(match["minute"] or 0) / 60
        half = match["half"] or match["half_"]
        if half and hours < 13:
            hours = hours % 12 + (12 if half == "p" else 0)
    offset = _OFFSET.search(text[max(0, match.start() - 40) : match.start()])
    if offset is not None:
        count = {"half an": 0.5, "an": 1.0}.get(offset["count"]) or float(offset["count"])
        step = count if offset["unit"] == "hour" else count / 60
        hours += -step if offset["side"] == "before" else step
    return hours if 0 <= hours < 24 else None


def _exact(text: str, life: Life) -> Iterator[Span]:
    """`two hours ago`: counted from now."""
    for match in re.finditer(r"\b(\d{1,4}|an?)\s+(minute|hour)s?\s+ago\b", text):
        count = 1 if match[1].startswith("a") else int(match[1])
        back = timedelta(minutes=count) if match[2] == "minute" else timedelta(hours=count)
        moment = (life.now - back).timestamp()
        yield Span(moment, moment, back.total_seconds() / 4 + 60)


def _month_number(match: re.Match[str]) -> int:
    return next(number for number, name in enumerate(_MONTHS, start=1) if name.startswith(match["month"][:3]))


def _iso(match: re.Match[str], life: Life) -> _Days | None:
    return _one(_date(int(match[1]), int(match[2]), int(match[3])))


def _day_of_month(match: re.Match[str], life: Life) -> _Days | None:
    month, day = _month_number(match), int(match["day"])
    if match["year"]:
        return _one(_date(int(match["year"]), month, day))
    return _one(_last_such((_date(year, month, day) for year in range(life.now.year, life.first.year - 2, -1)), life))


def _ordinal(match: re.Match[str], life: Life) -> _Days | None:
    months = (life.now.year - life.first.year) * 12 + life.now.month - life.first.month
    places = (divmod(life.now.year * 12 + life.now.month - 1 - back, 12) for back in range(max(months, 0) + 1))
    return _one(_last_such((_date(year, month + 1, int(match["day"])) for year, month in places), life))


def _whole_month(match: re.Match[str], life: Life) -> _Days | None:
    month = _month_number(match)
    if match["year"]:
        return _month_of(int(match["year"]), month)
    for year in range(life.now.year, life.first.year - 1, -1):
        first = date(year, month, 1)
        if (year, month) >= (life.first.year, life.first.month) and first <= life.last.date():
            return _month_of(year, month)
    return None


def _month_of(year: int, month: int) -> _Days:
    return _Days(date(year, month, 1), date(year, month, monthrange(year, month)[1]), _HOURS)


def _weekday(match: re.Match[str], life: Life) -> _Days | None:
    today = life.now.date()
    back = (today.weekday() - _WEEKDAYS.index(match["weekday"])) % 7
    if match["which"] == "last" and back == 0:
        back = 7
    return _one(today - timedelta(days=back))


def _near_day(match: re.Match[str], life: Life) -> _Days | None:
    back = {"today": 0, "tonight": 0, "this morning": 0, "this afternoon": 0, "this evening": 0}.get(match[1])
    if back is None:
        back = 2 if match[1].startswith("the day") else 1
    return _one(life.now.date() - timedelta(days=back))


def _ago(match: re.Match[str], life: Life) -> _Days | None:
    count = 1 if match["count"].startswith("a") else int(match["count"])
    days = count * {"day": 1, "week": 7, "month": 30, "year": 365}[match["unit"]]
    around = {"day": 0, "week": 1, "month": 5, "year": 30}[match["unit"]]
    try:
        middle = life.now.date() - timedelta(days=days)
        return _Days(middle - timedelta(days=around), middle + timedelta(days=around), _HOURS)
    except OverflowError:
        return None


def _period(match: re.Match[str], life: Life) -> _Days | None:
    today = life.now.date()
    back = 1 if match["which"] == "last" else 0
    if match["unit"] == "week":
        monday = today - timedelta(days=today.weekday() + 7 * back)
        return _Days(monday, monday + timedelta(days=6), _HOURS)
    year, month = divmod(today.year * 12 + today.month - 1 - back, 12)
    return _month_of(year, month + 1)


def _date(year: int, month: int, day: int) -> date | None:
    try:
        if year not in _YEARS:
            return None
        return date(year, month, day)
    except ValueError:
        return None


def _one(day: date | None) -> _Days | None:
    return None if day is None else _Days(day, day)


def _last_such(days: Iterator[date | None], life: Life) -> date | None:
    """The first of these that the agent lived, else the first that is past; they come latest first."""
    known = [day for day in islice(days, _LOOKED_BACK) if day is not None and day <= life.now.date()]
    return next((day for day in known if life.had(day)), known[0] if known else None)


_Reader = Callable[[re.Match[str], Life], _Days | None]
_READERS: tuple[tuple[re.Pattern[str], _Reader], ...] = (
    (re.compile(r"\b(\d{4})-(\d\d)-(\d\d)\b"), _iso),
    (re.compile(rf"\b{_MONTH}\.?\s+(?:the\s+)?{_DAY}\b(?!:){_YEAR}"), _day_of_month),
    (re.compile(rf"(?<!:)\b{_DAY}\s+(?:of\s+)?{_MONTH}\b{_YEAR}"), _day_of_month),
    (re.compile(rf"\bthe\s+(?P<day>[0-3]?\d)(?:st|nd|rd|th)\b(?!\s+(?:of\s+)?{_MONTH})"), _ordinal),
    (re.compile(rf"\b(?:in|during)\s+{_MONTH}\b(?!\.?\s+(?:the\s+)?[0-3]?\d(?:st|nd|rd|th)?\b(?!:)){_YEAR}"),
     _whole_month),
    (re.compile(rf"\b(?:(?P<which>last|this|on)\s+)?(?P<weekday>{'|'.join(_WEEKDAYS)})\b"), _weekday),
    (re.compile(r"\b(today|tonight|this (?:morning|afternoon|evening)|the day before yesterday|"
                r"(?<!before )yesterday|last night)\b"), _near_day),
    (re.compile(r"\b(?P<count>\d{1,3}|an?)\s+(?P<unit>day|week|month|year)s?\s+ago\b"), _ago),
    (re.compile(r"\b(?P<which>last|this)\s+(?P<unit>week|month)\b"), _period),
)  # fmt: skip
