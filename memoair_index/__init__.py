"""The search engine: text analysis, a static embedding, index files, ranked search that explains itself.

It knows nothing of callers, HTTP or clouds: documents go in, ranked hits come out.
"""

from memoair_index.analysis import terms
from memoair_index.chunks import chunks, documents_of, group_of
from memoair_index.container import ContainerError
from memoair_index.document import Document, Hit, Query
from memoair_index.index import Index
from memoair_index.label_extraction import labels_of
from memoair_index.sentences import passages, sentences

__all__ = [
    "ContainerError",
    "Document",
    "Hit",
    "Index",
    "Query",
    "chunks",
    "documents_of",
    "group_of",
    "labels_of",
    "passages",
    "sentences",
    "terms",
]
