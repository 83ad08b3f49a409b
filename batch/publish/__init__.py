"""Results beyond the store: the sinks that follow it, each from what it has on to what the store has."""
