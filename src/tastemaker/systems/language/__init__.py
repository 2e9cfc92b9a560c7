"""Language models and text vectors."""
