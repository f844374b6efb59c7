"""The guards of the code, each with a way to break it and the tests that must notice. See tools/break_guards.py."""

from guards.access import DASHBOARD, IDENTITY, TENANCY
from guards.calls import CALLS, OUTCOMES, WORDS
from guards.evaluations import EVALUATIONS, REPLAYS, SERVER_EVALUATIONS
from guards.guard import Guard as Guard
from guards.prompts import PROMPTS, SDK_PROMPTS
from guards.storage import DURABILITY, FILES, LIMITS

GUARDS: tuple[Guard, ...] = (
    *DURABILITY,
    *LIMITS,
    *FILES,
    *IDENTITY,
    *TENANCY,
    *DASHBOARD,
    *CALLS,
    *WORDS,
    *OUTCOMES,
    *PROMPTS,
    *SDK_PROMPTS,
    *EVALUATIONS,
    *SERVER_EVALUATIONS,
    *REPLAYS,
)
