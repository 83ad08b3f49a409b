"""Results beyond the store: the sinks that follow it, each from what it has on to what the store has.

target.py      what such a sink is
publisher.py   what is published when, and what each sink has (tidegate/store/published.py)
targets.py     the sinks of a pipeline, opened
kafka.py       results on Kafka, as a worker writes them
"""
