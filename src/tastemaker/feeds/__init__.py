"""Datasets turned into what learning consumes: matrices and typed batches."""
