"""The two kernels compared: the same items and the same sums, to the last bit, whatever the request."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.timing import fastest

from memoair_index import kernel
from memoair_index.items import ITEM_DTYPE, NONE, GrowingArray
from memoair_index.kernel import SCRATCH_BYTES, KernelRequest, KernelResult, numpy_kernel

c_kernel = pytest.importorskip("memoair_index.kernel.c_kernel", reason="the C kernel is not installed")
c_score: Callable[[KernelRequest], KernelResult] = c_kernel.score
both_kernels = pytest.mark.parametrize("score", [c_score, numpy_kernel.score], ids=["c", "numpy"])

MAX_INT32 = 2**31 - 1
numbers = st.integers(-(2**31), MAX_INT32)
floats = st.floats(0, 100, width=32)
INF, NAN = float("inf"), float("nan")


def make_items(*items: dict[str, Any], split: int = 0) -> GrowingArray:
    """Return items, the first ``split`` of them as if from a file; by default each is a document without neighbors."""
    array = np.zeros(len(items), ITEM_DTYPE)
    array["group"], array["previous"], array["following"], array["speaker"] = 0, NONE, NONE, NONE
    for row, item in zip(array, items, strict=True):
        for field, value in item.items():
            row[field] = value
    array_with_tail = GrowingArray(array[:split].copy())
    for row in array[split:]:
        array_with_tail.append(row)
    return array_with_tail


def make_postings(word: int, items: list[int], counts: list[int], first: int = 0, weight: float = 1.0) -> Any:
    return word, np.array(items, np.int32), np.array(counts, np.uint8), first, weight


def make_request(items: GrowingArray, *lists: Any, **changed: Any) -> KernelRequest:
    return KernelRequest(
        **{
            "items": items,
            "postings": list(lists),
            "scratch": np.zeros((len(items) + 1) * SCRATCH_BYTES, np.uint8),
            "average_length": 4.0,
            "limit": 1_000,
            "k1": 0.8,
            "b": 0.2,
            "decays": (0.7, 0.5, 0.35, 0.25),
            "pooled_weight": 1.5,
            **changed,
        }
    )


def sums_by_item(result: KernelResult) -> dict[int, tuple[bytes, bytes]]:
    """Return the bits of the sum and of the bonus of each item."""
    assert len(result.items) == len(result.pooled) == len(result.bonus) == len(set(result.items.tolist()))
    return {
        item: (pooled.tobytes(), bonus.tobytes())
        for item, pooled, bonus in zip(result.items.tolist(), result.pooled, result.bonus, strict=True)
    }


def ordinals_near(size: int) -> st.SearchStrategy[int]:
    """Return a strategy for ordinals, some of them a little out of range."""
    return st.integers(-3, size + 3)


@st.composite
def kernel_requests(
    draw: st.DrawFn, lengths: st.SearchStrategy[int], links: st.SearchStrategy[int] | None = None
) -> Any:
    size = draw(st.integers(0, 12))
    # Some stores have no neighbors, and some no removed items.
    links = (
        links if links is not None else draw(st.sampled_from([ordinals_near(size), ordinals_near(size), st.just(NONE)]))
    )
    groups = draw(st.sampled_from([st.integers(-1, 2), st.integers(0, 2)]))
    item = st.fixed_dictionaries(
        {
            "group": groups,
            "previous": links,
            "following": links,
            "speaker": st.integers(-1, 2),
            "length": lengths,
        }
    )
    items = make_items(*draw(st.lists(item, min_size=size, max_size=size)), split=draw(st.integers(0, size)))
    lists = []
    # The lists of one word are adjacent.
    for word in sorted(draw(st.lists(st.integers(0, 3), max_size=6))):
        entries = draw(st.lists(st.tuples(ordinals_near(size), st.integers(0, 255)), max_size=8))
        first = draw(st.sampled_from([0, 0, len(items.base), 1, -1, MAX_INT32]))
        weight = draw(st.floats(-1, 8, width=32))
        lists.append(
            make_postings(word, [ordinal for ordinal, _ in entries], [count for _, count in entries], first, weight)
        )
    bonuses = draw(
        st.lists(st.tuples(ordinals_near(size) | numbers, floats | st.sampled_from([NAN, INF, -1.0])), max_size=5)
    )
    return make_request(
        items,
        *lists,
        average_length=draw(st.floats(1, 50)),
        limit=draw(st.sampled_from([0, 1, 2, 3, 1_000])),
        decays=draw(st.lists(st.floats(0, 1, width=32), max_size=8)),
        pooled_weight=draw(floats),
        speaker=draw(st.integers(-1, 2)),
        speaker_weight=draw(floats),
        # May be False only if the store has none.
        has_neighbors=draw(st.booleans())
        or bool((items.to_array()["previous"] != NONE).any() or (items.to_array()["following"] != NONE).any()),
        has_removed=draw(st.booleans()) or bool((items.to_array()["group"] < 0).any()),
        only_group=draw(st.integers(-1, 3)),
        exclude_group=draw(st.integers(-1, 3)),
        bonus_items=np.array([ordinal for ordinal, _ in bonuses], np.int32),
        bonuses=np.array([bonus for _, bonus in bonuses], np.float32),
    )


@given(kernel_requests(lengths=st.integers(0, 40)))
@settings(deadline=None, max_examples=200)
def test_both_kernels_find_the_same_items_with_equal_sums(kernel_request: KernelRequest) -> None:
    assert sums_by_item(c_score(kernel_request)) == sums_by_item(numpy_kernel.score(kernel_request))


@given(kernel_requests(lengths=numbers, links=numbers))
# Lengths at which the divisor of BM25 is exactly 0, with counts that make it 1/0 and 0/0.
@example(
    make_request(
        make_items({"length": -16}, {"length": -16}),
        make_postings(0, [0, 1], [0, 1]),
        b=0.5,
        k1=1.0,
        average_length=8.0,
    )
)
@example(
    make_request(
        make_items({"length": -24}, {"length": -8}), make_postings(0, [0, 1], [1, 0]), b=0.5, k1=1.0, average_length=8.0
    )
)
@settings(deadline=None, max_examples=200)
def test_both_kernels_agree_on_items_of_a_damaged_file(kernel_request: KernelRequest) -> None:
    assert sums_by_item(c_score(kernel_request)) == sums_by_item(numpy_kernel.score(kernel_request))


@given(kernel_requests(lengths=st.integers(0, 40)))
@settings(deadline=None)
def test_the_sums_in_scratch_memory_are_zero_after_a_call(kernel_request: KernelRequest) -> None:
    c_score(kernel_request)
    capacity = len(kernel_request.scratch) // SCRATCH_BYTES
    # The lists of ordinals after the sums need not be cleared.
    assert not kernel_request.scratch.view(np.float32)[: 4 * capacity].any()


@given(st.lists(kernel_requests(lengths=st.integers(0, 40)), min_size=2, max_size=4))
@settings(deadline=None, max_examples=50)
def test_calls_do_not_affect_later_calls(sequence: list[KernelRequest]) -> None:
    scratch = np.zeros(20 * SCRATCH_BYTES, np.uint8)
    for kernel_request in sequence:
        assert sums_by_item(c_score(attrs.evolve(kernel_request, scratch=scratch))) == sums_by_item(
            numpy_kernel.score(kernel_request)
        )


@both_kernels
def test_the_best_items_are_kept_and_the_older_ones_among_ties(score: Callable[[KernelRequest], KernelResult]) -> None:
    found = score(
        make_request(
            make_items(*[{} for _ in range(9)], split=4),
            make_postings(0, [*range(9)], [1, 1, 3, 1, 1, 3, 1, 2, 1]),
            limit=5,
        )
    )
    assert sorted(found.items.tolist()) == [0, 1, 2, 5, 7]


@both_kernels
def test_only_the_best_posting_list_of_a_word_counts(score: Callable[[KernelRequest], KernelResult]) -> None:
    weak, strong = make_postings(0, [0], [1], weight=0.5), make_postings(0, [0], [1], weight=2.0)
    alone = score(make_request(make_items({}), strong))
    assert (
        sums_by_item(score(make_request(make_items({}), weak, strong)))
        == sums_by_item(score(make_request(make_items({}), strong, weak)))
        == sums_by_item(alone)
    )
    (pooled,) = score(make_request(make_items({}), strong, make_postings(1, [0], [1], weight=0.5))).pooled
    assert pooled == pytest.approx(alone.pooled[0] * 1.25)


@both_kernels
def test_an_impact_spreads_one_step_per_decay(score: Callable[[KernelRequest], KernelResult]) -> None:
    chain = [{"previous": ordinal - 1, "following": ordinal + 1 if ordinal < 6 else NONE} for ordinal in range(7)]
    found = score(make_request(make_items(*chain, split=3), make_postings(0, [0], [1]), decays=(0.5, 0.25, 0.125)))
    spread = dict(zip(found.items.tolist(), (found.pooled / found.pooled.max()).tolist(), strict=True))
    assert spread == pytest.approx({0: 1.0, 1: 0.5, 2: 0.25, 3: 0.125})


@both_kernels
def test_cyclic_links_terminate(score: Callable[[KernelRequest], KernelResult]) -> None:
    circle = [{"previous": 1, "following": 1}, {"previous": 0, "following": 0}, {"previous": 2, "following": 2}]
    found = score(make_request(make_items(*circle), make_postings(0, [0, 2], [1, 1])))
    assert sorted(found.items.tolist()) == [0, 1, 2]


@both_kernels
@pytest.mark.parametrize("link", [-2, 2, MAX_INT32, -MAX_INT32 - 1])
def test_an_invalid_link_is_not_followed(score: Callable[[KernelRequest], KernelResult], link: int) -> None:
    found = score(make_request(make_items({"previous": link, "following": link}, {}), make_postings(0, [0], [1])))
    assert found.items.tolist() == [0]


@both_kernels
def test_removed_items_are_never_found(score: Callable[[KernelRequest], KernelResult]) -> None:
    bonus = {"bonus_items": np.array([0, 1], np.int32), "bonuses": np.array([9, 9], np.float32)}
    found = score(make_request(make_items({"group": -1}, {}), make_postings(0, [0, 1], [1, 1]), **bonus))
    assert found.items.tolist() == [1]


@both_kernels
@pytest.mark.parametrize("bonus", [NAN, 0.0, -1.0])
def test_only_a_positive_bonus_makes_a_candidate(score: Callable[[KernelRequest], KernelResult], bonus: float) -> None:
    found = score(
        make_request(
            make_items({}, {}), bonus_items=np.array([0, 1], np.int32), bonuses=np.array([bonus, 1], np.float32)
        )
    )
    assert found.items.tolist() == [1]


@both_kernels
def test_empty_requests_find_nothing(score: Callable[[KernelRequest], KernelResult]) -> None:
    for kernel_request in (
        make_request(make_items()),
        make_request(make_items({})),
        make_request(make_items({}), make_postings(0, [0], [1]), limit=0),
    ):
        found = score(kernel_request)
        assert (found.items.size, found.pooled.size, found.bonus.size) == (0, 0, 0)


@pytest.mark.parametrize(
    "changed",
    [
        {"scratch": np.zeros(SCRATCH_BYTES, np.uint8)},
        {"bonus_items": np.zeros(2, np.int32)},
        {"limit": -1},
        {"decays": (0.5,) * 9},
        {"postings": [(0, np.zeros(3, np.int32), np.zeros(2, np.uint8), 0, 1.0)]},
        {"postings": [make_postings(0, [0], [1], weight=NAN)]},
        {"postings": [make_postings(0, [0], [1], weight=INF)]},
    ],
    ids=str,
)
def test_the_c_kernel_refuses_buffers_that_do_not_fit_together(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fit together|too many decays"):
        c_score(make_request(make_items({}, {}), **changed))


def test_the_c_kernel_is_in_use() -> None:
    assert kernel.score is c_score


def test_without_the_c_kernel_one_warning_is_logged_and_search_works() -> None:
    code = """
import logging, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name == "memoair_index.kernel._compiled":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
logging.basicConfig(format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)
from memoair_index import Document, Index, Query
index = Index()
for number in range(3):
    index.add([Document(f"boots-{number}", "red boots"), Document(f"hat-{number}", "a blue hat")])
print(*(hit.document.id for hit in index.search(Query("boots"), 3)))
print(kernel_name := sys.modules["memoair_index.kernel"].score.__module__)
"""
    said = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stderr) == (0, "")
    warning, found, used = said.stdout.splitlines()
    assert warning.startswith("WARNING memoair_index.kernel ")
    assert warning.endswith("action=kernel_plain")
    assert found == "boots-0 boots-1 boots-2"
    assert used == "memoair_index.kernel.numpy_kernel"


# Pruning: with many postings the C kernel reads only as much of them as it must


def make_large_request(seed: int, *, limit: int, linked: bool, options: dict[str, Any]) -> KernelRequest:
    """Return a request with long lists of frequent words, in ascending order of their words' frequency."""
    random = np.random.default_rng(seed)
    size = 4_000
    array = np.zeros(size, ITEM_DTYPE)
    array["group"] = np.arange(size) // 5 if linked else np.arange(size)
    array["previous"], array["following"] = NONE, NONE
    array["length"] = random.integers(1, 40, size)
    array["speaker"] = random.integers(-1, 3, size)
    if linked:
        for first in range(0, size, 5):
            array["following"][first : first + 4] = np.arange(first + 1, first + 5)
            array["previous"][first + 1 : first + 5] = np.arange(first, first + 4)
    removed = random.random(size) < 0.05
    array["group"][removed] = NONE
    items = GrowingArray(array[: size - 7].copy())
    for row in array[size - 7 :]:
        items.append(row)
    words = []
    for word in range(int(random.integers(2, 14))):
        lists = []
        for _ in range(int(random.integers(1, 4))):
            share = float(random.choice([0.001, 0.01, 0.1, 0.4, 0.9]))
            holders = np.flatnonzero(random.random(size) < share).astype(np.int32)
            counts = np.minimum(255, random.geometric(0.6, len(holders))).astype(np.uint8)
            weight = float(np.log1p((size - len(holders) + 0.5) / (len(holders) + 0.5)) * random.uniform(0.1, 1.1))
            lists.append((holders, counts, weight))
        words.append((sum(len(holders) for holders, _, _ in lists), word, lists))
    postings = [
        (word if word % 3 else word + 1_000, holders, counts, 0, weight)
        for _, word, lists in sorted(words, key=lambda entry: entry[:2])
        for holders, counts, weight in lists
    ]
    labels = [(np.flatnonzero(random.random(size) < 0.02).astype(np.int32), 0, float(random.uniform(0, 5)))]
    return make_request(
        items,
        *postings,
        limit=limit,
        talk_weight=0.3,
        first_talk_word=1_000,
        labels=labels,
        has_neighbors=linked,
        **options,
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    limit=st.sampled_from([1, 8, 128]),
    linked=st.booleans(),
    options=st.fixed_dictionaries(
        {},
        optional={
            "speaker": st.just(1),
            "speaker_weight": st.sampled_from([0.0, 2.0]),
            "exclude_group": st.integers(0, 700),
        },
    ),
)
@settings(deadline=None, max_examples=150)
def test_pruning_changes_no_result(seed: int, limit: int, linked: bool, options: dict[str, Any]) -> None:
    request = make_large_request(seed, limit=limit, linked=linked, options=options)
    complete = sums_by_item(numpy_kernel.score(request))
    for _ in range(2):  # the second time in memory that the first must have cleared
        assert sums_by_item(c_score(request)) == complete


def test_frequent_words_are_not_read_if_they_cannot_change_the_result() -> None:
    size = 200_000
    array = np.zeros(size, ITEM_DTYPE)
    array["previous"], array["following"], array["length"] = NONE, NONE, 10
    items = GrowingArray(array)
    everywhere = np.arange(size, dtype=np.int32)
    rare = np.arange(0, size, 1_000, dtype=np.int32)
    ones = np.ones(size, np.uint8)
    frequent = [(word, everywhere, ones, 0, 0.01) for word in range(1, 30)]
    scratch = np.zeros(size * SCRATCH_BYTES, np.uint8)

    def took_s(*lists: Any) -> float:
        request = make_request(items, *lists, limit=100, scratch=scratch, has_neighbors=False, has_removed=False)
        return fastest(lambda: c_score(request), 0.0)

    alone_first = took_s((0, rare, ones[: len(rare)], 0, 9.0), *frequent)
    assert alone_first < took_s(*frequent) / 4
