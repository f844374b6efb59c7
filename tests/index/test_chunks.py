"""Chunks of a long text: nothing is lost, none is too long, and each continues the one before it."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from memoair_index.chunks import CHUNK_CHARS, OVERLAP_CHARS, chunk_spans, split_chunks

texts = st.lists(
    st.text("abc é。.!?\n ", max_size=80) | st.integers(1, 900).map(lambda length: "x" * length), max_size=40
).map(" ".join)


@given(texts, st.integers(20, 200), st.integers(0, 19))
def test_chunks_cover_the_text_and_respect_size_and_overlap(text: str, size: int, overlap: int) -> None:
    spans = chunk_spans(text, size, overlap)

    assert all(end - start <= size for start, end in spans)
    assert (spans[0][0], spans[-1][1]) == (0, len(text))
    for (start, end), (next_start, next_end) in itertools.pairwise(spans):
        assert start < next_start
        assert end - overlap <= next_start <= end < next_end
    assert split_chunks(text, size, overlap) == [text[start:end] for start, end in spans]


def test_a_short_or_empty_text_is_one_chunk() -> None:
    assert split_chunks("We open at nine.") == ["We open at nine."]
    assert split_chunks("") == [""]


def test_chunks_end_at_sentences_and_overlap() -> None:
    sentences = [f"This is sentence number {number}, and it says a little. " for number in range(60)]
    chunks = split_chunks("".join(sentences))

    assert len(chunks) > 4
    assert all(chunk.endswith("a little. ") for chunk in chunks)
    for before, after in itertools.pairwise(chunks):
        shared = next(n for n in range(OVERLAP_CHARS, -1, -1) if before.endswith(after[:n]))
        assert shared > OVERLAP_CHARS / 2
        assert after.startswith("This is sentence")
    assert max(map(len, chunks)) > CHUNK_CHARS * 0.9
