"""`tidegate batch run` on one session: the same class that the command runs."""

from __future__ import annotations

import time
from contextlib import nullcontext

from benchmarks.engines import MICRO_BATCH, Done, Stopwatch, given, session, tell


class _Watch:
    """Remembers when micro-batches were committed."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def starting(self, what: str) -> None:
        if what == "Spark":
            self.at = [time.monotonic()]

    def committed(self, *_: object) -> None:
        self.at.append(time.monotonic())

    def published(self, *_: object) -> None:
        """Its pipelines have no other sink than the database."""

    def timed_out(self, *_: object) -> None:
        """Nor a timeout."""

    def waiting(self, error: Exception, seconds: float) -> None:
        raise error


def main() -> None:
    work = given()
    with session(work) as (spark, started):
        from batch.options import Options, Trigger
        from batch.run import BatchRun
        from tidegate.config.pipeline import Pipeline

        for job in work.jobs:
            most = job.get("max_records", MICRO_BATCH)
            options = Options(Trigger(single=most is None), most or MICRO_BATCH, master=work.master)
            watch, watching = Stopwatch(), _Watch()
            run = BatchRun(
                Pipeline.model_validate(job["pipeline"]),
                options,
                watching,
                open_session=lambda name, scratch, master: nullcontext(spark),
            )
            report = run.run()
            seconds, cpu = watch.read()
            batches = [b - a for a, b in zip(watching.at, watching.at[1:], strict=False)]
            tell(Done(report.total.read, seconds, started, cpu, batches))


if __name__ == "__main__":
    main()
