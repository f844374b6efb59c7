"""The one place to put your language model."""


def answer(question: str, memory: str) -> str:
    """What the agent says next. Put your model here: ``memory`` belongs into its prompt, as background.

    This one has no model: it repeats what it remembers, so that you hear the memory work.
    """
    memories = [line[2:] for line in memory.splitlines() if line.startswith("- ") and "I remember:" not in line]
    return f"I remember: {' / '.join(memories[:3])}" if memories else f"I have noted that you said: {question}"
