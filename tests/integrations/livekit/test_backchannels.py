"""Which words only say that the caller listens."""

import pytest
from memoair_livekit._backchannels import is_backchannel


@pytest.mark.parametrize("text", ["Mhm.", "mm-hmm", "Uh-huh", "Okay, right.", "Yeah.", "I see.", "Oh, got it!"])
def test_backchannels(text: str) -> None:
    assert is_backchannel(text)


@pytest.mark.parametrize("text", ["", " ", "Yes.", "No.", "Sure.", "Okay, stop.", "I", "see", "4711", "mm mm mm mm mm"])
def test_what_may_be_an_answer(text: str) -> None:
    assert not is_backchannel(text)
