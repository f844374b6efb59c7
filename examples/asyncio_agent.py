"""The memory of a voice agent on asyncio: the model calls the search tool, and each turn is saved."""

import asyncio
import uuid

from memoair_voice import MemoAirVoiceMemory

CALLER = {"id": "caller_43", "name": "Sam"}


async def main() -> None:
    """Run one turn. The second run finds what the first one saved."""
    async with MemoAirVoiceMemory(
        project_id="proj_acme", user_id=str(CALLER["id"]), runtime_url="http://127.0.0.1:0"
    ) as memory:
        await memory.start_session({"user": CALLER, "assistantName": "Juno"})
        search = memory.search_memory_tool()  # pass its schema() to the language model
        print(await search("Which tape am I allergic to?"))
        print(search.last_trace)
        await memory.after_turn("I'm allergic to strapping tape.", "Noted.", turn_id=uuid.uuid4().hex)


if __name__ == "__main__":
    asyncio.run(main())
