"""The place to add your language model, and what your agent says to an answering machine."""


def answer(question: str, memory: str) -> str:
    """Return what the agent says next. Call your model here, with ``memory`` in its prompt as background.

    This stand-in repeats what it remembers, so that you can hear the memory work without a model.
    """
    memories = [line[2:] for line in memory.splitlines() if line.startswith("- ") and "I remember:" not in line]
    return f"I remember: {' / '.join(memories[-3:])}" if memories else f"I have noted that you said: {question}"


def voicemail_message() -> str:
    """Return what the agent says to an answering machine before it hangs up; "" to hang up at once."""
    return ""
