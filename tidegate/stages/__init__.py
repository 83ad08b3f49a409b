"""The stages of a record's way, engine-neutral and vectorised. Read pipeline.py first."""
