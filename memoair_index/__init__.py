"""The search engine: text analysis, an incremental index, ranked search.

It knows nothing of callers, HTTP or clouds: documents go in, ranked hits come out.
"""

from memoair_index.analysis import terms
from memoair_index.document import Document, Hit, Query
from memoair_index.index import Index

__all__ = ["Document", "Hit", "Index", "Query", "terms"]
