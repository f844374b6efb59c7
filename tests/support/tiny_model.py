"""A tiny transformer, built here: it knows eight words, and the meaning of each."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from memoair_index.transformer import MODEL_FILE, TOKENIZER_FILE

if TYPE_CHECKING:
    import onnx


def skip_without_onnx() -> None:
    """Skip the module that calls this if no model can be built or run."""
    pytest.importorskip("onnx")
    if find_spec("onnxruntime") is None:  # not imported here, because the product must disable its telemetry first
        pytest.skip("onnxruntime is not installed", allow_module_level=True)


# The meaning of each word in eight dimensions; the marks of beginning and end have none.
MEANINGS = {
    "[UNK]": [],
    "[CLS]": [],
    "[SEP]": [],
    "boots": [1.0, 0.1],
    "shoes": [0.9, 0.2],
    "refund": [0.0, 0.0, 1.0],
    "money": [0.0, 0.1, 0.9],
    "dentist": [0.0, 0.0, 0.0, 1.0],
    "tooth": [0.1, 0.0, 0.0, 0.9],
    "red": [0.0, 0.0, 0.0, 0.0, 1.0],
    "blue": [0.0, 0.0, 0.0, 0.0, 0.8, 0.6],
}
DIMENSIONS = 8


def make_tokenizer(vocabulary: Sequence[str]) -> str:
    """Return a word tokenizer in the format of Hugging Face, with padding and truncation that must be overridden."""
    numbers = {word: number for number, word in enumerate(vocabulary)}
    special = [
        {"id": numbers[name], "content": name, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for name in ("[UNK]", "[CLS]", "[SEP]")
    ]

    def mark(name: str) -> dict[str, object]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    single = [mark("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, mark("[SEP]")]
    padding = {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0},
            "padding": padding | {"pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]"},
            "added_tokens": special,
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": single,
                "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {
                    name: {"id": name, "ids": [numbers[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")
                },
            },
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": numbers, "unk_token": "[UNK]"},
        }
    )


def make_model(table: NDArray[np.float32], inputs: Sequence[str] = ("input_ids", "attention_mask")) -> bytes:
    """Return a model that looks up a vector for each token and masks it."""
    import onnx

    helper, types = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["looked_up"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=types.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column"]),
        helper.make_node("Mul", ["looked_up", "column"], ["token_embeddings"]),
    ]
    if "token_type_ids" in inputs:
        nodes[-1].output[0] = "masked"
        nodes += [
            helper.make_node("Gather", ["type_table", "token_type_ids"], ["type"]),
            helper.make_node("Add", ["masked", "type"], ["token_embeddings"]),
        ]
    known = [
        onnx.numpy_helper.from_array(table, "table"),
        onnx.numpy_helper.from_array(np.array([2]), "last"),
        onnx.numpy_helper.from_array(np.array([np.zeros_like(table[0]), np.ones_like(table[0])]), "type_table"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, types.INT64, ["batch", "length"]) for name in inputs],
        [helper.make_tensor_value_info("token_embeddings", types.FLOAT, ["batch", "length", table.shape[1]])],
        known,
    )
    # Versions of the format that are years older than the oldest supported onnxruntime.
    return _to_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7))


def make_flat_model() -> bytes:
    """Return a model whose output for each token is a number instead of a vector."""
    import onnx

    helper, types = onnx.helper, onnx.TensorProto
    names = ("input_ids", "attention_mask")
    graph = helper.make_graph(
        [helper.make_node("Mul", list(names), ["product"])],
        "flat",
        [helper.make_tensor_value_info(name, types.INT64, ["batch", "length"]) for name in names],
        [helper.make_tensor_value_info("product", types.INT64, ["batch", "length"])],
    )
    return _to_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7))


def _to_bytes(model: "onnx.ModelProto") -> bytes:
    import onnx

    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def tiny_table() -> NDArray[np.float32]:
    rows = [meaning + [0.0] * (DIMENSIONS - len(meaning)) for meaning in MEANINGS.values()]
    return np.array(rows, np.float32)


def write_tiny_model(folder: Path, model: bytes | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(make_model(tiny_table()) if model is None else model)
    (folder / TOKENIZER_FILE).write_text(make_tokenizer(list(MEANINGS)), encoding="utf-8")
    return folder
