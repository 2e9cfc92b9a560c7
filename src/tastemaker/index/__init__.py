"""From scores and vectors to lists: exact and approximate search, and the retriever."""
