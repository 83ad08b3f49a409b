"""The tests. `tests.providers` is where Kafka and PostgreSQL come from."""
