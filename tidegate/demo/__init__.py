"""The demo: a year of real flights through a real broker, a real worker and a real database, with the proof."""
