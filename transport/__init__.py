"""A Faust transport, `tide://`, that delivers record batches: one message per partition and fetch.

Faust takes every fetch apart into single records, at 70 to 250 µs each. Here the value of a message is a `SourceBatch`:

    app = faust.App("p", broker="tide://localhost:9092", **faust_settings(pipeline.kafka))
    use_transport(app, TransportSettings(max_batch_records=8192))
    app.tide_ownership = owner                        # where partitions start, and what to finish when they go

    @app.agent(batch_topic(app, "flights"), concurrency=1, supervisor_strategy=CrashingSupervisor)
    async def process(stream):
        stream = stream.noack()                       # acknowledged by us, when the work is committed
        async for event in stream.events():
            batch: SourceBatch = event.value
            workers[batch.tp].submit(batch, on_committed=lambda event=event: finished(stream, event))

    async def finished(stream, event):                # from any task of the worker's loop, in any order
        await stream.ack(event)

- One agent, `concurrency=1`: actors share one queue, so with more the batches of one partition would overtake each
  other.
  Work on several partitions at once by handing batches to a task per partition, as above.
- An agent that raises stops the worker with a non-zero exit only under `CrashingSupervisor`; Faust's own default
  restarts it.
- `app.consumer` is the `Consumer`: `pause_partitions_for`, `resume_partitions_for`, `seek_to`, `at_end`, `lag`, …
"""

from transport.app import BatchApp, add_agent
from transport.batch import BatchSchema, SourceBatch, split
from transport.consumer import Consumer
from transport.driver import Transport, batch_topic, faust_settings, use_transport
from transport.ownership import EARLIEST, LATEST, Ownership, TransportSettings

__all__ = [
    "EARLIEST", "LATEST", "BatchApp", "BatchSchema", "Consumer", "Ownership", "SourceBatch", "Transport", "TransportSettings",
    "add_agent", "batch_topic", "faust_settings", "split", "use_transport",
]  # fmt: skip
