"""The search engine: text analysis, a static embedding, index files and ranked search with explanations.

It knows nothing of users, HTTP or clouds: documents go in, ranked hits come out.

Example:
    >>> index = Index()
    >>> index.add([Document("turn-1", "I would like to return the red boots.")])
    >>> [hit.document.id for hit in index.search(Query("boots"), limit=5)]
    ['turn-1']
"""

from memoair_index.analysis import extract_terms
from memoair_index.chunks import document_group, split_chunks, split_document, split_text
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
    "split_text",
]
