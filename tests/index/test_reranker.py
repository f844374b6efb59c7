"""The reranker, with a tiny model that is built here, and with MiniLM if it is available.

``MEMOAIR_TEST_MINILM`` names a folder with MiniLM's ``model.onnx`` and ``tokenizer.json``.
"""

import logging
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_model import (
    DIMENSIONS,
    MEANINGS,
    make_flat_model,
    make_model,
    make_tokenizer,
    skip_without_onnx,
    tiny_table,
    write_tiny_model,
)

from memoair_index import Document, Hit, Index, Query
from memoair_index.analysis import stable_hash
from memoair_index.container import Container, write_container
from memoair_index.ranking import COSINE_UNIT
from memoair_index.reranker import MAX_RERANKED, NEIGHBOR_CHARS, Reranker, texts_in_context
from memoair_index.transformer import MODEL_FILE, TOKENIZER_FILE, Transformer, TransformerError
from memoair_index.vector_store import KIND, VERSION, VectorStore

skip_without_onnx()

MINILM = os.environ.get("MEMOAIR_TEST_MINILM")  # read at import: tests run without the developer's variables


def expected_vector(text: str) -> NDArray[np.float32]:
    """Return the vector that the tiny model should give for a text, computed in the simplest way."""
    total = sum((tiny_table()[list(MEANINGS).index(word)] for word in text.split()), np.zeros(DIMENSIONS, np.float32))
    length = float(np.linalg.norm(total))
    return total / length if length else total


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def transformer(tiny_folder: Path) -> Transformer:
    return Transformer(tiny_folder)


@pytest.fixture(scope="module", params=["tiny", "minilm"])
def any_transformer(request: pytest.FixtureRequest, transformer: Transformer) -> Transformer:
    if request.param == "tiny":
        return transformer
    if not MINILM:
        pytest.skip("MEMOAIR_TEST_MINILM names no folder")
    return Transformer(Path(MINILM))


@pytest.fixture
def cache_path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "vectors.bin"


@pytest.fixture
def reranker(transformer: Transformer, cache_path: Path) -> Reranker:
    cache_path.parent.mkdir()
    return Reranker(VectorStore(cache_path, transformer), transformer)


def make_hit(document_id: str, score: float) -> Hit:
    confidence = FixedConfidence(score)
    return Hit(7, score, lambda _: Document(document_id, "boots"), lambda _: {"around": 0.5}, confidence)


class FixedConfidence:
    """A confidence that is given."""

    def __init__(self, value: float) -> None:
        self._value = value

    def __call__(self, position: int) -> float:
        assert position == 7
        return self._value

    def features(self, position: int) -> Mapping[str, float]:
        return {"share": self._value}


def make_hits(*ids: str) -> list[Hit]:
    """Return hits for documents, with scores that decline by a hundredth."""
    return [make_hit(document_id, 1 - number / 100) for number, document_id in enumerate(ids)]


def describe_hits(hits: Sequence[Hit]) -> list[tuple[str, float, dict[str, float]]]:
    """Return the ids, scores and contributions of hits."""
    return [(hit.document.id, hit.score, dict(hit.contributions)) for hit in hits]


def add_texts(store: VectorStore, *texts: str) -> int:
    return store.add((text, text) for text in texts)


# The transformer


def test_a_vector_is_the_mean_of_its_tokens_at_unit_length(transformer: Transformer) -> None:
    texts = ["boots", "red boots", "Refund MONEY refund", "dentist unheard"]
    expected = [expected_vector(text.lower().replace(" unheard", "")) for text in texts]
    assert transformer.encode(texts) == pytest.approx(np.array(expected), abs=1e-6)
    assert transformer.encode(texts).dtype == np.float32


def test_vectors_have_unit_length_and_do_not_depend_on_the_batch(any_transformer: Transformer) -> None:
    texts = ["red boots", "a refund for the boots, please, as soon as you can", "dentist", "blue " * 90]
    together = any_transformer.encode(texts)
    assert together.shape == (4, any_transformer.dimensions)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1, abs=1e-5)
    assert all((any_transformer.encode([text])[0] == row).all() for text, row in zip(texts, together, strict=True))
    assert any_transformer.encode([]).shape == (0, any_transformer.dimensions)


def test_words_of_similar_meaning_have_a_higher_cosine(any_transformer: Transformer) -> None:
    boots, shoes, dentist = any_transformer.encode(["boots", "shoes", "dentist"])
    assert boots @ shoes > boots @ dentist + 0.2


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000"])
def test_a_text_without_words_has_a_vector_of_length_zero(any_transformer: Transformer, text: str) -> None:
    assert not any_transformer.encode([text]).any()
    assert not any_transformer.encode_query(text).any()


@pytest.mark.parametrize(
    "text", ["\ud800", "boots \udfff", "\0", "\u202e\u2066", "\U0001f97e", "e\u0301" * 50, "靴" * 999]
)
def test_any_text_is_encoded(any_transformer: Transformer, text: str) -> None:
    vector = any_transformer.encode([text])[0]
    assert np.isfinite(vector).all()
    assert any(math.isclose(float(np.linalg.norm(vector)), length, abs_tol=1e-5) for length in (0, 1))


@pytest.mark.parametrize("word", ["boots ", "b", "boots, ", "靴", " "])
def test_a_long_text_is_truncated(any_transformer: Transformer, word: str) -> None:
    text = "red " + word * (100_000 // len(word))
    vector = any_transformer.encode([text])[0]
    assert (vector == any_transformer.encode([text[:20_000]])[0]).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_tokens_after_the_first_128_are_ignored(transformer: Transformer) -> None:
    read = transformer.encode(["boots " * 126, "boots " * 125 + "dentist", "boots " * 126 + "dentist"])
    assert (read[0] == read[2]).all()  # 126 tokens, and the marks of beginning and end
    assert (read[0] != read[1]).any()


def test_a_query_is_encoded_like_any_text_and_cached_read_only(any_transformer: Transformer) -> None:
    vector = any_transformer.encode_query("which boots")
    assert (vector == any_transformer.encode(["which boots"])[0]).all()
    assert any_transformer.encode_query("which boots") is vector
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


def test_encoding_is_thread_safe(any_transformer: Transformer) -> None:
    texts = ["red boots", "blue boots", "a refund", "money", "tooth", "boots " * 100]
    expected = any_transformer.encode(texts)
    with ThreadPoolExecutor(6) as threads:
        for vectors in threads.map(any_transformer.encode, [texts] * 12):
            assert (vectors == expected).all()


def test_a_model_with_token_type_ids_is_supported(tmp_path: Path, transformer: Transformer) -> None:
    inputs = ("input_ids", "token_type_ids", "attention_mask")
    typed = Transformer(write_tiny_model(tmp_path, make_model(tiny_table(), inputs)))
    assert (typed.encode(["red boots"]) == transformer.encode(["red boots"])).all()
    assert typed.fingerprint != transformer.fingerprint


def test_a_model_that_returns_nan_gives_zero_vectors(tmp_path: Path) -> None:
    broken = Transformer(write_tiny_model(tmp_path, make_model(np.full((len(MEANINGS), 8), np.nan, np.float32))))
    assert not broken.encode(["red boots"]).any()


@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
def test_a_missing_file_is_named_in_the_error(tmp_path: Path, name: str) -> None:
    (write_tiny_model(tmp_path) / name).unlink()
    with pytest.raises(TransformerError, match=f"{name}: No such file"):
        Transformer(tmp_path)


def test_a_missing_folder_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(TransformerError, match="nowhere"):
        Transformer(tmp_path / "nowhere")


@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"boots", lambda content: content[: len(content) // 2]])
@pytest.mark.parametrize("name", [MODEL_FILE, TOKENIZER_FILE])
def test_a_damaged_file_is_named_in_the_error_and_nothing_is_printed(
    tmp_path: Path, name: str, damage: Callable[[bytes], bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_tiny_model(tmp_path) / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TransformerError, match=rf"{name}: not an? .*, or damaged"):
        Transformer(tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("inputs", [("input_ids", "attention_mask", "pixels")])
def test_a_model_with_unsupported_inputs_is_refused(tmp_path: Path, inputs: Sequence[str]) -> None:
    with pytest.raises(TransformerError, match="unsupported inputs"):
        Transformer(write_tiny_model(tmp_path, make_model(tiny_table(), inputs)))


def test_a_model_with_an_unsupported_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TransformerError, match="not a vector for each token"):
        Transformer(write_tiny_model(tmp_path, make_flat_model()))


def test_a_tokenizer_with_a_larger_vocabulary_than_the_model_is_refused(tmp_path: Path) -> None:
    write_tiny_model(tmp_path)
    numbers = [*MEANINGS, *(f"word-{number}" for number in range(99)), "a"]
    (tmp_path / TOKENIZER_FILE).write_text(make_tokenizer(numbers), encoding="utf-8")
    with pytest.raises(TransformerError, match="running the model failed"):
        Transformer(tmp_path)


def run_python(code: str, *arguments: object) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
    ).stdout


def test_without_onnxruntime_opening_a_model_says_what_to_install(tiny_folder: Path) -> None:
    code = """
import sys
from pathlib import Path

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "onnxruntime":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
from memoair_index.transformer import Transformer
try:
    Transformer(Path(sys.argv[1]))
except ImportError as error:
    print(error)
"""
    assert "pip install 'memoair-voice[onnx]>=0.4'" in run_python(code, tiny_folder)


def test_onnxruntime_is_imported_only_when_a_model_is_opened() -> None:
    code = "import sys, memoair_index.reranker; print('onnxruntime' in sys.modules)"
    assert run_python(code) == "False\n"


def test_onnxruntime_sends_no_telemetry_and_writes_no_user_files(tiny_folder: Path, tmp_path: Path) -> None:
    code = """
import sys, psutil
from pathlib import Path
import memoair_index.reranker
threads = psutil.Process().num_threads()
transformer = memoair_index.reranker.Transformer(Path(sys.argv[1]))
transformer.encode(["red boots"])
print(psutil.Process().num_threads() - threads)
"""
    home = tmp_path / "home"
    home.mkdir()
    # Without the variables of build machines and developers that already disable the telemetry.
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "PYTHONPATH", "SYSTEMROOT"}}
    folders = dict.fromkeys(("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME", "XDG_DATA_HOME"), str(home))
    completed = subprocess.run(
        [sys.executable, "-c", code, str(tiny_folder)], capture_output=True, text=True, check=True, env=kept | folders
    )
    assert completed.stdout == "0\n"
    assert completed.stderr == ""
    assert list(home.rglob("*")) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_model_opened_before_a_fork_works_in_the_child(tiny_folder: Path) -> None:
    code = """
import os, sys, numpy
from pathlib import Path
from memoair_index.transformer import Transformer

transformer = Transformer(Path(sys.argv[1]))
expected = transformer.encode(["red boots"])
child = os.fork()
if not child:
    os._exit(0 if (transformer.encode(["red boots"]) == expected).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    for folder in filter(None, (tiny_folder, MINILM)):
        completed = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True, timeout=60
        )
        assert completed.stdout == "0\n"


# The vectors


def test_cosines_are_nan_for_unknown_and_empty_documents(reranker: Reranker) -> None:
    assert add_texts(reranker.vectors, "boots", "red boots", "") == 3
    question = expected_vector("shoes")
    cosines = reranker.vectors.cosines(question, ["red boots", "unheard", "boots", ""])
    assert cosines.dtype == np.float32
    assert cosines[[0, 2]] == pytest.approx(
        [expected_vector("red boots") @ question, expected_vector("boots") @ question], abs=1e-3
    )
    assert np.isnan(cosines[[1, 3]]).all()  # an empty text has no meaning
    assert reranker.vectors.cosines(question, []).shape == (0,)


def test_missing_documents_are_listed_in_order_until_added(reranker: Reranker) -> None:
    ids = ["boots", "", "red", "\ud800"]
    assert reranker.vectors.find_missing(ids) == ids
    add_texts(reranker.vectors, "red", "")
    assert reranker.vectors.find_missing(ids) == ["boots", "\ud800"]
    add_texts(reranker.vectors, "boots", "\ud800")
    assert reranker.vectors.find_missing(ids) == []
    assert len(reranker.vectors) == 4


def test_adding_a_vector_again_replaces_it_in_memory_and_in_the_file(
    reranker: Reranker, transformer: Transformer, cache_path: Path
) -> None:
    store = reranker.vectors
    for text in ("boots", "dentist", "refund"):  # in memory, then replacing memory, then replacing the file
        store.add([("a", text), ("other", "red")])
        assert store.cosines(expected_vector(text), ["a", "other"]) == pytest.approx([1, 0], abs=1e-3)
        assert len(store) == 2
        if text != "boots":
            store.save()
    restarted = VectorStore(cache_path, transformer)
    assert restarted.cosines(expected_vector("refund"), ["a", "other"]) == pytest.approx([1, 0], abs=1e-3)
    assert len(restarted) == 2


def test_saved_vectors_survive_a_restart(any_transformer: Transformer, cache_path: Path) -> None:
    cache_path.parent.mkdir()
    store = VectorStore(cache_path, any_transformer)
    texts = [f"red boots {number}" for number in range(30)]
    add_texts(store, *texts[:20])
    store.save()
    add_texts(store, *texts[20:])
    assert store.unsaved_count == 10
    store.save()
    assert store.unsaved_count == 0

    question = any_transformer.encode_query("boots")
    restarted = VectorStore(cache_path, any_transformer)
    assert restarted.find_missing(texts) == []
    assert restarted.unsaved_count == 0
    assert (restarted.cosines(question, texts) == store.cosines(question, texts)).all()
    assert not np.isnan(restarted.cosines(question, texts)).any()


def test_unsaved_vectors_are_missing_after_a_restart(
    reranker: Reranker, transformer: Transformer, cache_path: Path
) -> None:
    add_texts(reranker.vectors, "boots")
    reranker.vectors.save()
    add_texts(reranker.vectors, "refund")
    assert VectorStore(cache_path, transformer).find_missing(["boots", "refund"]) == ["refund"]


def test_saving_without_new_vectors_writes_nothing(reranker: Reranker, cache_path: Path) -> None:
    reranker.vectors.save()
    assert not cache_path.exists()
    add_texts(reranker.vectors, "boots")
    reranker.vectors.save()
    before = cache_path.stat()
    reranker.vectors.save()
    assert (cache_path.stat().st_ino, cache_path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in cache_path.parent.iterdir()] == [cache_path.name]


def test_the_file_holds_neither_words_nor_ids(reranker: Reranker, cache_path: Path) -> None:
    reranker.vectors.add([("the-id", "red boots")])
    reranker.vectors.save()
    assert not [word for word in (b"the-id", b"red", b"boots") if word in cache_path.read_bytes()]


def test_a_failed_save_loses_nothing(reranker: Reranker, transformer: Transformer, cache_path: Path) -> None:
    add_texts(reranker.vectors, "boots")
    cache_path.parent.rmdir()
    with pytest.raises(FileNotFoundError):
        reranker.vectors.save()
    assert reranker.vectors.unsaved_count == 1
    assert reranker.vectors.find_missing(["boots"]) == []
    cache_path.parent.mkdir()
    reranker.vectors.save()
    assert VectorStore(cache_path, transformer).find_missing(["boots"]) == []


TEXTS = ("boots", "red boots", "refund", "tooth")


def assert_is_rebuilt(transformer: Transformer, cache_path: Path) -> None:
    """Open an unusable file, and check that a new one is built."""
    store = VectorStore(cache_path, transformer)
    assert store.find_missing(TEXTS) == list(TEXTS)
    assert len(store) == 0
    add_texts(store, *TEXTS)
    store.save()
    assert VectorStore(cache_path, transformer).find_missing(TEXTS) == []


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_cache_is_rebuilt(
    reranker: Reranker, transformer: Transformer, cache_path: Path, share: float
) -> None:
    add_texts(reranker.vectors, *TEXTS)
    reranker.vectors.save()
    content = cache_path.read_bytes()
    cache_path.write_bytes(content[: int(share * len(content))])
    assert_is_rebuilt(transformer, cache_path)


def test_a_wrong_byte_in_the_cache_never_gives_a_wrong_vector(
    reranker: Reranker, transformer: Transformer, cache_path: Path
) -> None:
    add_texts(reranker.vectors, *TEXTS)
    reranker.vectors.save()
    expected = reranker.vectors.cosines(expected_vector("red shoes"), TEXTS)
    content = cache_path.read_bytes()
    refused = 0
    for position in range(len(content)):
        cache_path.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        store = VectorStore(cache_path, transformer)
        if store.find_missing(TEXTS):
            assert store.find_missing(TEXTS) == list(TEXTS)
            refused += 1
        else:  # the byte is in the padding between arrays
            assert (store.cosines(expected_vector("red shoes"), TEXTS) == expected).all()
    assert refused > 300
    assert_is_rebuilt(transformer, cache_path)


def test_the_log_of_a_damaged_cache_names_no_user(
    reranker: Reranker, transformer: Transformer, cache_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache_path.write_bytes(b"boots")
    with caplog.at_level(logging.DEBUG):
        assert_is_rebuilt(transformer, cache_path)
    (record,) = caplog.records
    assert "action=vectors_refused why=ContainerError" in record.getMessage()
    assert str(cache_path) not in caplog.text
    assert "boots" not in caplog.text


def test_an_unreadable_cache_counts_as_empty(reranker: Reranker, transformer: Transformer, cache_path: Path) -> None:
    cache_path.mkdir()
    assert VectorStore(cache_path, transformer).find_missing(["boots"]) == ["boots"]


def test_a_cache_of_another_model_is_rebuilt(reranker: Reranker, cache_path: Path, tmp_path: Path) -> None:
    add_texts(reranker.vectors, *TEXTS)
    reranker.vectors.save()
    other = Transformer(write_tiny_model(tmp_path / "other", make_model(tiny_table()[:, ::-1].copy())))
    assert other.dimensions == DIMENSIONS
    assert_is_rebuilt(other, cache_path)


@pytest.mark.parametrize(
    "arrays",
    [
        {"keys": np.zeros(2, np.uint64)},
        {"keys": np.zeros(2, np.uint64), "vectors": np.zeros((2, DIMENSIONS), np.float32)},
        {"keys": np.zeros(2, np.uint64), "vectors": np.zeros((2, DIMENSIONS - 1), np.float16)},
        {"keys": np.zeros(2, np.uint64), "vectors": np.zeros((3, DIMENSIONS), np.float16)},
        {"keys": np.zeros(2, np.int64), "vectors": np.zeros((2, DIMENSIONS), np.float16)},
        {"keys": np.zeros((2, 1), np.uint64), "vectors": np.zeros((2, DIMENSIONS), np.float16)},
    ],
)
def test_a_cache_with_inconsistent_arrays_is_rebuilt(
    reranker: Reranker, transformer: Transformer, cache_path: Path, arrays: dict[str, NDArray[np.generic]]
) -> None:
    write_container(cache_path, KIND, VERSION, {"model": transformer.fingerprint}, arrays)
    assert_is_rebuilt(transformer, cache_path)


def test_texts_are_consumed_one_at_a_time(reranker: Reranker) -> None:
    def stopping() -> Iterator[tuple[str, str]]:
        for text in ("boots", "refund"):
            yield text, text
            assert reranker.vectors.find_missing([text]) == []
        raise InterruptedError

    with pytest.raises(InterruptedError):
        reranker.vectors.add(stopping())
    assert reranker.vectors.find_missing(["boots", "refund", "tooth"]) == ["tooth"]


def test_the_keys_in_the_file_are_sorted(reranker: Reranker, cache_path: Path) -> None:
    texts = [f"boots {number}" for number in range(50)]
    add_texts(reranker.vectors, *texts)
    reranker.vectors.save()
    assert Container(cache_path, KIND, VERSION).get_array("keys").tolist() == sorted(map(stable_hash, texts))


def test_concurrent_additions_saves_and_searches_lose_no_vector(
    reranker: Reranker, transformer: Transformer, cache_path: Path, nothing_left_behind: None
) -> None:
    words = ["boots", "refund", "dentist", "red"]
    additions, store, question = 100, reranker.vectors, expected_vector("boots red")
    expected = [float(expected_vector(word) @ question) for word in words]
    begin = threading.Barrier(7)
    is_done = threading.Event()

    def add(number: int) -> None:
        begin.wait()
        for turn in range(additions):
            store.add([(f"{number}-{turn}", words[number]), ("shared", words[turn % 4])])
            assert not store.find_missing([f"{number}-{turn}"])

    def save() -> None:
        begin.wait()
        while not is_done.is_set():
            store.save()

    def search() -> None:
        begin.wait()
        while not is_done.is_set():
            for number in range(4):
                cosines = store.cosines(question, [f"{number}-{turn}" for turn in range(additions)])
                known = cosines[~np.isnan(cosines)]
                assert known == pytest.approx(expected[number], abs=1e-3)
                assert np.isnan(cosines[len(known) :]).all()  # in the order in which they were added
            (shared,) = store.cosines(question, ["shared"])
            assert np.isnan(shared) or any(math.isclose(shared, each, abs_tol=1e-3) for each in expected)

    with ThreadPoolExecutor(7) as threads:
        others = [threads.submit(each) for each in (save, save, search)]
        for future in [threads.submit(add, number) for number in range(4)]:
            future.result()
        is_done.set()
        for future in others:
            future.result()
    store.save()
    restarted = VectorStore(cache_path, transformer)
    assert len(restarted) == len(store) == 4 * additions + 1
    for number in range(4):
        ids = [f"{number}-{turn}" for turn in range(additions)]
        assert restarted.cosines(question, ids) == pytest.approx(expected[number], abs=1e-3)


# The reranker


def test_documents_of_similar_meaning_rise_and_the_contribution_explains_it(reranker: Reranker) -> None:
    add_texts(reranker.vectors, "refund", "dentist", "boots")
    before = make_hits("refund", "dentist", "boots")
    found = reranker.rerank(before, "shoes", 0.5)

    assert [hit.document.id for hit in found] == ["boots", "refund", "dentist"]
    for hit in found:
        (before_rerank,) = [each for each in before if each.document.id == hit.document.id]
        cosine = float(expected_vector(hit.document.id) @ expected_vector("shoes"))
        terms = dict(hit.contributions)
        assert terms.pop("around") == 0.5
        assert terms.pop("transformer", 0.0) == pytest.approx(0.5 * cosine / COSINE_UNIT, abs=1e-2)
        assert not terms
        assert hit.score == pytest.approx(before_rerank.score + hit.contributions.get("transformer", 0.0))
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert describe_hits(before) == describe_hits(make_hits("refund", "dentist", "boots"))


def test_a_document_without_a_vector_gets_the_mean_of_the_others(reranker: Reranker) -> None:
    add_texts(reranker.vectors, "boots", "dentist", "")
    found = reranker.rerank(make_hits("boots", "new", "dentist", ""), "boots", 1.0)
    contributions = {hit.document.id: hit.contributions.get("transformer", 0.0) for hit in found}
    assert (
        contributions["new"]
        == contributions[""]
        == pytest.approx((contributions["boots"] + contributions["dentist"]) / 2, abs=1e-5)
    )
    assert contributions["boots"] == pytest.approx(1 / COSINE_UNIT, abs=1e-2)


@pytest.mark.parametrize("query", ["boots", "", "unheard", "\ud800"])
def test_without_any_vector_the_hits_are_unchanged(reranker: Reranker, query: str) -> None:
    hits = make_hits("boots", "new", "")
    assert describe_hits(reranker.rerank(hits, query, 1.0)) == describe_hits(hits)
    add_texts(reranker.vectors, "")
    assert describe_hits(reranker.rerank(hits, query, 1.0)) == describe_hits(hits)
    assert reranker.rerank([], query, 1.0) == []


@pytest.mark.parametrize("query", ["", " \n", "unheard"])
def test_a_question_without_known_words_keeps_the_order(reranker: Reranker, query: str) -> None:
    add_texts(reranker.vectors, "refund", "boots")
    hits = make_hits("refund", "new", "boots")
    found = reranker.rerank(hits, query, 1.0)
    assert describe_hits(found) == describe_hits(hits)


def test_ties_keep_their_order(reranker: Reranker) -> None:
    names = [f"{number}" for number in range(2 * MAX_RERANKED)]
    reranker.vectors.add((name, "boots") for name in names)
    hits = [make_hit(name, 1.0) for name in names]
    assert [hit.document.id for hit in reranker.rerank(hits, "boots", 0.3)] == names


def test_only_the_best_hits_are_reranked(reranker: Reranker) -> None:
    names = [f"{number}" for number in range(MAX_RERANKED + 10)]
    reranker.vectors.add((name, "boots") for name in names)
    hits = [make_hit(name, 100.0 - number) for number, name in enumerate(names)]
    found = reranker.rerank(hits, "boots", 0.3)
    assert [hit.document.id for hit in found] == names
    assert ["transformer" in hit.contributions for hit in found] == [True] * MAX_RERANKED + [False] * 10
    assert describe_hits(found[MAX_RERANKED:]) == describe_hits(hits[MAX_RERANKED:])


def test_documents_are_encoded_with_their_neighbors() -> None:
    group = [Document("a", "one"), Document("b", ""), Document("c", "two"), Document("d", "three")]
    assert texts_in_context(group) == [("a", "one"), ("b", "one\ntwo"), ("c", "two\nthree"), ("d", "two\nthree")]
    assert texts_in_context([]) == []
    assert texts_in_context(group[:1]) == [("a", "one")]


def test_only_the_nearest_part_of_long_neighbors_is_encoded() -> None:
    long = "far " * 500 + "near" + " far" * 500
    ((_, first), (_, middle), (_, last)) = texts_in_context(
        [Document("a", long), Document("b", "b"), Document("c", long)]
    )
    assert middle == f"{long[-NEIGHBOR_CHARS:]}\nb\n{long[:NEIGHBOR_CHARS]}"
    assert first == f"{long}\nb"
    assert last == f"b\n{long}"


def test_the_last_document_of_a_group_waits_for_its_neighbor(reranker: Reranker, transformer: Transformer) -> None:
    group = [Document("a", "boots"), Document("b", "red"), Document("c", "refund")]
    assert reranker.encode_group(group[:2], is_complete=False) == 1
    assert reranker.vectors.find_missing(["a", "b", "c"]) == ["b", "c"]
    assert reranker.encode_group(group, is_complete=False) == 1
    assert reranker.encode_group(group, is_complete=True) == 1
    assert reranker.encode_group(group, is_complete=True) == 0
    assert reranker.encode_group([], is_complete=True) == reranker.encode_group([], is_complete=False) == 0
    expected = [expected_vector("boots red"), expected_vector("boots red refund"), expected_vector("red refund")]
    for document, vector in zip(group, expected, strict=True):
        assert reranker.vectors.cosines(vector, [document.id]) == pytest.approx([1], abs=1e-3)


def test_an_index_with_a_reranker(any_transformer: Transformer, cache_path: Path) -> None:
    reranker = Reranker(VectorStore(cache_path, any_transformer), any_transformer)
    index = Index()
    index.add(
        [
            Document("money", "red red: money and a refund", "call-1"),
            Document("tooth", "red: dentist, tooth", "call-2"),
            Document("shoes", "red: shoes, boots", "call-3"),
        ]
    )
    for group in ("call-1", "call-2", "call-3"):
        reranker.encode_group(index.group_documents(group), is_complete=True)
    hits = index.search(Query("red"), 10)
    assert len(hits) == 3
    for question, expected in (("boots", "shoes"), ("tooth", "tooth"), ("refund money", "money")):
        found = reranker.rerank(hits, question, 5.0)
        assert found[0].document.id == expected
        assert {hit.document.id for hit in found} == {"money", "tooth", "shoes"}
        assert found[0].score == pytest.approx(sum(found[0].contributions.values()), rel=1e-5)
