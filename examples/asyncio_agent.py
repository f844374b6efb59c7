"""A voice agent on asyncio, reduced to its memory: the model calls the search tool, and each turn is kept."""

import asyncio
import uuid

from memoair_voice import MemoAirVoiceMemory

CALLER = {"id": "caller_43", "name": "Sam"}


async def main() -> None:
    """Play one turn: the second run knows the answer of the first."""
    async with MemoAirVoiceMemory(
        project_id="proj_acme", user_id=str(CALLER["id"]), runtime_url="http://127.0.0.1:0"
    ) as memory:
        await memory.start_session({"user": CALLER, "assistantName": "Juno"})
        search = memory.search_memory_tool()  # its schema() is what the language model is given
        print(await search("Which tape am I allergic to?"))
        print(search.last_trace)
        await memory.after_turn("I'm allergic to strapping tape.", "Noted.", turn_id=uuid.uuid4().hex)


if __name__ == "__main__":
    asyncio.run(main())
