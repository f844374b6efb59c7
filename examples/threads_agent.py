"""The memory of a voice agent without asyncio. Run it twice: the second run remembers the first."""

import sys
import uuid

from memoair_voice_sync import MemoAirVoiceMemorySync

CALLER = {"id": "caller_42", "name": "Alex", "metadata": {"plan": "premium"}}


def answer(question: str, context: str) -> str:
    """Stand in for a language model: show how much background it would get."""
    return f"(with {len(context)} characters of background) You asked: {question}"


def main(questions: list[str]) -> None:
    """Answer the questions of one call."""
    with MemoAirVoiceMemorySync(
        project_id="proj_acme", user_id=str(CALLER["id"]), runtime_url="http://127.0.0.1:0"
    ) as memory:
        memory.start_session({"user": CALLER, "assistantName": "Juno"})
        for question in questions:
            recall = memory.search_memory(question, timeout_ms=250)
            print(recall.contextText)
            memory.after_turn(question, answer(question, recall.contextText), turn_id=uuid.uuid4().hex)
        memory.end_session()


if __name__ == "__main__":
    main(sys.argv[1:] or ["My boots are size nine.", "Which size were my boots?"])
