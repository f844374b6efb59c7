"""Make the calls of a month from the scripts: the same ones for the same seed, relative to now, in business hours.

A caller's calls follow one another: what is agreed in one, such as a day, is what the next one asks about.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any

import attrs

from memoair_cli.cloud_demo.script import PhoneLine, ScriptedTurn, Talk

# Traces are kept for 30 days. Those of the first day should not disappear while someone looks at them.
_DAYS = 28
_OPENING_HOURS: Mapping[int, tuple[time, time]] = {  # by weekday; Sundays are closed
    **{weekday: (time(8, 0), time(17, 30)) for weekday in range(5)},
    5: (time(9, 0), time(11, 45)),
}
_WORDS_PER_S = 2.4
_PAUSES_S = 3.0  # of a turn: people think, and models answer
_MISHEARD_SHARE = 0.3
# One call in so many has a search in which a lane was late; and one in so many arrives late, from a machine that was
# offline.
_CALLS_PER_LATE_SEARCH, _CALLS_PER_OFFLINE_MACHINE = 25, 40
_OFFLINE_FOR = timedelta(minutes=47)
_UPLOAD_TIME = timedelta(seconds=3)
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
    "sixteenth seventeenth eighteenth nineteenth twentieth twenty-first twenty-second twenty-third twenty-fourth "
    "twenty-fifth twenty-sixth twenty-seventh twenty-eighth twenty-ninth thirtieth thirty-first"
).split()
_DAYS_AHEAD: Mapping[str, tuple[int, int]] = {"day": (2, 9), "later_day": (6, 21)}
_TIMES = ("nine o'clock", "half past nine", "quarter past ten", "half past ten", "eleven", "two", "quarter past two",
          "half past three", "four o'clock")  # fmt: skip
_PARTS = ("between nine and one", "between one and five")
_AMOUNTS = ("24", "38", "45", "64", "72", "89", "110")
_WHOLE = "||"


@attrs.frozen
class PlannedTurn:
    """A turn of a call.

    Attributes:
        said_at: When the caller has said it.
        user_text: What the caller says.
        heard_text: What the caller hears of the answer.
        full_text: The whole answer, if the caller interrupts it; None otherwise.
        tool: The tool that is called before the answer.
        misheard: What the caller seemed to say, until it was corrected.
        speaker: Who speaks, if it is not the caller.
        searches: Whether the agent searches its memory before it answers.
        is_late: Whether a lane is late in that search.
        tool_ms: How long the tool takes, in milliseconds.
    """

    said_at: datetime
    user_text: str
    heard_text: str
    full_text: str | None
    tool: Mapping[str, str] | None
    misheard: str | None
    speaker: str | None
    searches: bool
    is_late: bool
    tool_ms: float


@attrs.frozen
class PlannedCall:
    """A call.

    Attributes:
        line: The phone line.
        caller: The caller.
        session_id: The id of its session.
        talk: What it is about: the name of the talk.
        is_outbound: Whether the agent calls.
        turns: Its turns.
        ended_at: When it ends.
        arrived_at: When the server gets it.
    """

    line: PhoneLine
    caller: Mapping[str, str]
    session_id: str
    talk: str
    is_outbound: bool
    turns: Sequence[PlannedTurn]
    ended_at: datetime
    arrived_at: datetime

    @property
    def started_at(self) -> datetime:
        """When it begins."""
        return self.turns[0].said_at - timedelta(seconds=4)


def plan_calls(lines: Sequence[PhoneLine], now: datetime, zone: tzinfo, count: int, seed: int) -> list[PlannedCall]:
    """Return calls of the last four weeks, in the order in which they end.

    Args:
        lines: The phone lines.
        now: No call ends later.
        zone: The time zone of the business hours.
        count: The number of calls.
        seed: The same seed and times give the same calls.
    """
    draw = random.Random(seed)
    pairs = [(line, caller) for line in lines for caller in line.callers]
    shares = Counter(draw.choices(range(len(pairs)), [draw.choice((1, 2, 2, 3)) for _ in pairs], k=count))
    days = _open_days(now.astimezone(zone))
    calls: list[PlannedCall] = []
    late = set(draw.sample(range(count), count // _CALLS_PER_LATE_SEARCH))
    offline = set(draw.sample(range(count), count // _CALLS_PER_OFFLINE_MACHINE))
    for number, (line, caller) in enumerate(pairs):
        caller_days = sorted(draw.choices(days, k=shares[number]))
        story = _Story(line, caller, draw)
        starts = sorted(_draw_start(draw, opens, closes) for opens, closes in caller_days)
        for start in starts:
            call = story.tell(start, has_late_search=len(calls) in late, was_offline=len(calls) in offline)
            calls.append(call)
    return sorted(calls, key=lambda call: (call.ended_at, call.session_id))


def _open_days(now: datetime) -> list[tuple[datetime, datetime]]:
    """Return the opening hours of the last weeks as far as they have passed, oldest first."""
    found = []
    for age in range(_DAYS, -1, -1):
        day = now.date() - timedelta(days=age)
        if day.weekday() not in _OPENING_HOURS:
            continue
        opens, closes = (datetime.combine(day, hour, now.tzinfo) for hour in _OPENING_HOURS[day.weekday()])
        closes = min(closes, now - timedelta(minutes=15))  # a call must have ended
        if closes - opens > timedelta(hours=1):
            found.append((opens, closes))
    return found


def _draw_start(draw: random.Random, opens: datetime, closes: datetime) -> datetime:
    """Return a time in opening hours: people call most in the middle of the morning."""
    share = draw.triangular(0, 1, 0.3)
    return opens + timedelta(seconds=int((closes - opens).total_seconds() * share))


class _Story:
    """The calls of one caller, one after the other."""

    def __init__(self, line: PhoneLine, caller: Mapping[str, str], draw: random.Random) -> None:
        self._line, self._caller, self._draw = line, caller, draw
        self._agreed: dict[str, str] = {}
        self._days: dict[str, date] = {}  # the days among them: they pass
        self._talk_counts: Counter[str] = Counter()
        first = caller["name"].split()[0]
        at_start = {name.capitalize(): _capitalize(value) for name, value in caller.items()}  # of a sentence
        self._slots = {**caller, **at_start, "first": first, "title": caller.get("title", first)}
        self._slots["assistant"] = line.assistant

    def tell(self, start: datetime, *, has_late_search: bool, was_offline: bool) -> PlannedCall:
        """Return the next call."""
        for name in [name for name, day in self._days.items() if day <= start.date()]:
            del self._days[name], self._agreed[name]
        name, talk = self._draw_talk()
        is_first = not self._talk_counts
        self._talk_counts[name] += 1
        self._agree(talk, start.date())
        scripted = list(talk.turns)
        if not talk.outbound:
            greeting = self._draw.choice(self._line.first_greetings if is_first else self._line.greetings)
            scripted = [greeting, *scripted, self._draw.choice(self._line.goodbyes)]
        late_turn = 1 if has_late_search and len(scripted) > 1 else None
        turns, at = [], start + timedelta(seconds=4)
        for number, turn in enumerate(scripted):
            planned = self._speak(turn, at, is_late=number == late_turn, is_body=0 < number < len(scripted) - 1)
            turns.append(planned)
            at += timedelta(seconds=_duration_s(planned) + planned.tool_ms / 1e3)
        for dropped in talk.drops:
            self._agreed.pop(dropped, None)
            self._days.pop(dropped, None)
        ordinal = sum(self._talk_counts.values())
        session_id = f"{self._caller['id'].replace('caller', 'call')}_{start:%Y%m%d}_{ordinal:02}"
        arrived_at = at + (_OFFLINE_FOR if was_offline else _UPLOAD_TIME)
        return PlannedCall(self._line, self._caller, session_id, name, talk.outbound, turns, at, arrived_at)

    def _draw_talk(self) -> tuple[str, Talk]:
        fitting = {
            name: talk
            for name, talk in self._line.talks.items()
            if (self._talk_counts or talk.opens) and all(need in self._agreed for need in talk.needs)
        }
        # Talks that follow up come more often, and those that the caller has had come less often.
        weights = [
            talk.weight * (3 if talk.needs else 1) / (1 + 3 * self._talk_counts[name]) for name, talk in fitting.items()
        ]
        name = self._draw.choices(list(fitting), weights)[0]
        return name, fitting[name]

    def _agree(self, talk: Talk, today: date) -> None:
        for name, kind in talk.sets.items():
            former = self._agreed.get(name)
            if former is not None:
                self._slots[f"old_{name}"] = former
            self._agreed[name] = self._draw_value(name, kind, today)

    def _draw_value(self, name: str, kind: str, today: date) -> str:
        if kind in _DAYS_AHEAD:
            day = today + timedelta(days=self._draw.randint(*_DAYS_AHEAD[kind]))
            if day.weekday() == 6:
                day += timedelta(days=1)
            self._days[name] = day
            return f"{day:%A} the {_ORDINALS[day.day - 1]}"
        if kind == "order":
            return f"HP-{self._draw.randint(40_000, 49_999)}"
        values = {"time": _TIMES, "part_of_day": _PARTS, "amount": _AMOUNTS}[kind]
        return self._draw.choice(values)

    def _speak(self, turn: ScriptedTurn, at: datetime, *, is_late: bool, is_body: bool) -> PlannedTurn:
        said, answer = (_capitalize(self._fill(self._draw.choice(texts))) for texts in (turn.says, turn.answers))
        misheard = None
        if turn.misheard is not None and self._draw.random() < _MISHEARD_SHARE:
            misheard = _capitalize(self._fill(turn.misheard))
        heard, _, rest = answer.partition(_WHOLE)
        tool = None if turn.tool is None else {name: self._fill(value) for name, value in turn.tool.items()}
        return PlannedTurn(
            said_at=at + timedelta(seconds=len(said.split()) / _WORDS_PER_S),
            user_text=said,
            heard_text=heard.strip(),
            full_text=f"{heard.strip()} {rest.strip()}" if rest else None,
            tool=tool,
            misheard=misheard,
            speaker=turn.speaker,
            searches=is_body or self._line.recall == "hook",
            is_late=is_late,
            tool_ms=round(self._draw.lognormvariate(5.3, 0.5), 1) if tool else 0.0,
        )

    def _fill(self, text: str) -> str:
        values: dict[str, Any] = {**self._slots, **self._agreed}
        return text.format_map(values)


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _duration_s(turn: PlannedTurn) -> float:
    words = len(turn.user_text.split()) + len(turn.heard_text.split())
    return _PAUSES_S + words / _WORDS_PER_S
