"""Public data sets: fetched by address and checked, or read from folders that hold them."""

from tastemaker.data.sources.registry import Source, cache_folder, get, source, sources

__all__ = ["Source", "cache_folder", "get", "source", "sources"]
