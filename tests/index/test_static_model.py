"""The static embedding: its vectors and neighbors, and search without it or with a damaged one."""

import logging
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from memoair_index import ContainerError, Document, Index, Query
from memoair_index.analysis import extract_terms, split_words, stable_hash
from memoair_index.container import Container, write_container
from memoair_index.folding import fold
from memoair_index.static_model import KIND, VERSION, StaticModel, default_model

SHIPPED = Path(str(files("memoair_index") / "data" / "minilm-static.bin"))
ARRAYS = ["vectors", "scales", "terms", "neighbour_starts", "neighbours", "closeness", "tokenizer"]


def encode(*texts: str) -> NDArray[np.float32]:
    return default_model().encode([split_words(fold(text)) for text in texts])


def make_changed_model(path: Path, name: str, changed: NDArray[np.generic] | bytes) -> StaticModel:
    """Return the package's model with one array replaced."""
    shipped = Container(SHIPPED, KIND, VERSION)
    shipped.verify()
    write_container(
        path, KIND, VERSION, shipped.meta, {**{each: shipped.get_array(each) for each in ARRAYS}, name: changed}
    )
    return StaticModel(path)


@given(st.text(st.characters(exclude_categories=())))
@settings(deadline=None)
def test_vectors_have_length_1_or_0(text: str) -> None:
    (vector,) = encode(text)
    assert vector.dtype == np.float32
    length = float(np.linalg.norm(vector))
    assert length == pytest.approx(1, abs=1e-5) if split_words(fold(text)) else length == 0


def test_texts_without_words_have_zero_vectors_and_no_texts_give_no_rows() -> None:
    assert not encode("", "!?", "👢", "\ud800").any()
    assert encode().shape == (0, default_model().dimensions)


def test_a_vector_does_not_depend_on_the_other_texts() -> None:
    texts = ["red boots", "", "a dentist", "zzqx", "red boots"]
    alone = [encode(text)[0].tolist() for text in texts]
    assert [row.tolist() for row in encode(*texts)] == alone


def test_texts_of_similar_meaning_have_a_higher_cosine() -> None:
    question, near, far = encode(
        "when can I see the doctor", "the physician has time on Monday", "the boots are too small"
    )
    assert question @ near > question @ far + 0.1


def test_neighbors_are_sorted_and_similar_in_meaning() -> None:
    model = default_model()
    found = model.neighbors(stable_hash(extract_terms("doctor")[0]))
    cosines = [cosine for _, cosine in found]
    assert cosines == sorted(cosines, reverse=True)
    assert 0 < cosines[-1] <= cosines[0] <= 1
    assert stable_hash(extract_terms("physician")[0]) in [term for term, _ in found]
    assert stable_hash(extract_terms("doctor")[0]) not in [term for term, _ in found]
    for term in (0, 1, 2**64 - 1, stable_hash("zzqxzzqx")):
        assert not model.neighbors(term)


def test_neighbors_of_every_word_are_sorted() -> None:
    model = default_model()
    for term in Container(SHIPPED, KIND, VERSION).get_array("terms")[::50].tolist():
        cosines = [cosine for _, cosine in model.neighbors(term)]
        assert cosines == sorted(cosines, reverse=True)


def test_a_search_imports_no_machine_learning_framework() -> None:
    code = """
import sys
from memoair_index import Document, Index, Query
index = Index()
index.add([Document("a", "a physician")])
assert index.search(Query("doctor"), 5)[0].contributions["meaning"]
print(*sys.modules)
"""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    loaded = {name.partition(".")[0] for name in completed.stdout.split()}
    assert "tokenizers" in loaded
    assert not loaded & {
        "torch",
        "model2vec",
        "transformers",
        "onnxruntime",
        "sentence_transformers",
        "sklearn",
        "scipy",
    }


def test_a_truncated_model_or_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    content = SHIPPED.read_bytes()
    for length in (0, 7, 100, 5_000, len(content) // 2, len(content) - 1):
        (tmp_path / "model").write_bytes(content[:length])
        with pytest.raises(ContainerError):
            StaticModel(tmp_path / "model")
    write_container(tmp_path / "model", "memoair index", VERSION, {}, {})
    with pytest.raises(ContainerError):
        StaticModel(tmp_path / "model")


def test_a_model_with_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"no zip", SHIPPED.read_bytes()[:1_000]):
        with pytest.raises(ContainerError):
            make_changed_model(tmp_path / "model", "tokenizer", content)


@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_without_a_model_one_error_is_logged_and_words_are_found(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "data").mkdir()
    if damage == "cut short":
        (tmp_path / "data" / "minilm-static.bin").write_bytes(SHIPPED.read_bytes()[:-1])
    with monkeypatch.context() as patched, caplog.at_level(logging.INFO, "memoair_index"):
        patched.setattr("memoair_index.static_model.files", lambda _: tmp_path)
        default_model.cache_clear()
        try:
            index, another = Index(), Index()
        finally:
            default_model.cache_clear()
    (record,) = caplog.records
    assert (record.levelname, record.name) == ("ERROR", "memoair_index.static_model")
    assert "action=no_embedding" in record.getMessage()
    for each in (index, another):
        each.add([Document("a", "red boots", "1"), Document("b", "a physician", "2")])
        assert [hit.document.id for hit in each.search(Query("boots"), 5)] == ["a"]
        assert each.search(Query("doctor"), 5) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 65_504.0, 0.0])
def test_invalid_scales_do_not_break_a_search(value: float, tmp_path: Path) -> None:
    model = make_changed_model(
        tmp_path / "model", "scales", np.full_like(Container(SHIPPED, KIND, VERSION).get_array("scales"), value)
    )
    check_words_are_found(Index(model))


def test_invalid_neighbor_positions_do_not_break_a_search(tmp_path: Path) -> None:
    shipped = Container(SHIPPED, KIND, VERSION)
    for name, value in (("neighbours", 65_535), ("neighbour_starts", 2**32 - 1), ("neighbour_starts", 0)):
        model = make_changed_model(tmp_path / f"{name}-{value}", name, np.full_like(shipped.get_array(name), value))
        check_words_are_found(Index(model))


class BrokenEmbedding:
    """An embedding that returns invalid numbers."""

    dimensions = 3
    fingerprint = "broken"

    def __init__(self, *values: float) -> None:
        self.values = values

    def encode(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        return np.array([self.values] * len(texts), np.float32).reshape(len(texts), 3)

    def neighbors(self, term: int) -> Sequence[tuple[int, float]]:
        return ()


@pytest.mark.parametrize(
    "values",
    [(np.nan,) * 3, (np.nan, 1, 0), (np.inf, 1, 0), (-np.inf, np.inf, np.nan), (3e38, 3e38, -3e38), (1e-45, 0, 3e-45)],
    ids=str,
)
def test_invalid_vectors_do_not_break_a_search(values: tuple[float, ...]) -> None:
    check_words_are_found(Index(BrokenEmbedding(*values)))


def check_words_are_found(index: Index) -> None:
    index.add(Document(str(number), "red boots", str(number)) for number in range(3))
    index.add([Document("hat", "a blue hat", "hat")])
    hits = index.search(Query("boots"), 5)
    assert [hit.document.id for hit in hits] == ["0", "1", "2"]
    assert all(np.isfinite(hit.score) and all(map(np.isfinite, hit.contributions.values())) for hit in hits)
