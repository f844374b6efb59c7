"""The search engine: text analysis, a static embedding, index files, ranked search that explains itself.

It knows nothing of callers, HTTP or clouds: documents go in, ranked hits come out.
"""

from memoair_index.analysis import extract_terms
from memoair_index.chunks import document_group, split_chunks, split_document
from memoair_index.container import ContainerError
from memoair_index.document import Document, Hit, Query
from memoair_index.index import Index
from memoair_index.label_extraction import extract_labels
from memoair_index.sentences import split_passages, split_sentences

__all__ = [
    "ContainerError",
    "Document",
    "Hit",
    "Index",
    "Query",
    "document_group",
    "extract_labels",
    "extract_terms",
    "split_chunks",
    "split_document",
    "split_passages",
    "split_sentences",
]
