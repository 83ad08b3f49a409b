"""Where a test run's Kafka and PostgreSQL come from: a given address, Docker, or the embedded stack, in this order.

- `TIDEGATE_TEST_KAFKA=host:port`, `TIDEGATE_TEST_POSTGRES=postgresql://…`: servers that are there already
- `TIDEGATE_TEST_DOCKER=1`: testcontainers, when Docker answers
- else: tidegate.local (Kafka needs Java 17 or newer)

`TIDEGATE_REQUIRE=kafka,postgres,spark,chromium` turns a skip for what cannot be had into a failure.
"""
