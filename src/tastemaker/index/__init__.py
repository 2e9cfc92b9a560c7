"""From scores and vectors to lists: exact and approximate search, and the retriever."""

from tastemaker.index.ann import FaissIndex
from tastemaker.index.exact import ExactIndex
from tastemaker.index.pgvector import PgVectorIndex
from tastemaker.index.retriever import Index, Retriever, retriever, score_blocks
from tastemaker.index.select import Rules, select

__all__ = [
    "ExactIndex",
    "FaissIndex",
    "Index",
    "PgVectorIndex",
    "Retriever",
    "Rules",
    "retriever",
    "score_blocks",
    "select",
]
