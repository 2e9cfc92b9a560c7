"""How the tables came to be, step by step: one file a revision in `versions/`, never changed once it is released.

`tastemaker.serve.tables.upgrade` runs them when a database is opened.
"""
