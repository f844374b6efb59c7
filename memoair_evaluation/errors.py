"""Errors of what is evaluated: they name the field, and never its value, which may be a caller's words."""


class InvalidFieldError(ValueError):
    """Something is invalid. The message says what must be changed, and repeats no value.

    Attributes:
        field: Where, such as ``given.turns[2].user`` or ``recall.topK.org``; empty for the whole.
        problem: What is wrong there.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem
