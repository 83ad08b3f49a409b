"""The pipeline file: models, loading, checking."""
