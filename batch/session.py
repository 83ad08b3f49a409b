"""The Spark session: started quickly and quietly, ended without leaving a process."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from batch import connect
from batch.options import Options
from batch.quiet import silent_about_pandas
from tidegate.errors import ConfigError, StackError
from tidegate.local import jars
from tidegate.local.java import find_java

_JVM_ENDS = 20.0  # seconds; the JVM ends by itself once its standard input is closed
_LOOPBACK = "127.0.0.1"
_LOCAL = "local[*]"
_KAFKA_SOURCE = "org.apache.spark.sql.kafka010.KafkaSourceProvider"
JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""The JVM plans and sends partials; records never pass through it (fetch.py). So what it compiles it should compile quickly:
a run of 200 000 records takes 10 s of processor time in all, with Java's own choice 15."""
_LOGGING = Path(__file__).with_name("log4j2.properties")
_HEAP = "1g"  # what passes through the JVM is partials, as Arrow


@contextmanager
def spark_session(
    name: str, scratch: Path, master: str | None, *, shows: Callable[[str], None] | None = None
) -> Iterator[SparkSession]:
    """A session of this process's own, stopped at the end together with its JVM; with SPARK_REMOTE one on that server.

    `scratch`: a directory for what Spark puts on the disk. `master`: None is `local[*]`; under spark-submit, what it was told.
    `shows`: is told where Spark's own pages are (None: there are none, and the session starts sooner). Raises StackError
    without Java, Spark's Kafka jars or the server, ConfigError for a set-up that cannot run this.
    """
    server = connect.server()
    connect.require_fit(Options(master=master), ui=shows is not None)
    _require_unsubmitted(server, master)
    if server is not None:
        with connect.connected(server) as remote:
            yield remote
        return
    with _environment(master):
        session = _start({**_conf(name, scratch, master), "spark.ui.enabled": str(shows is not None).lower()})
        try:
            if _submitted():
                _require_jars()
            if shows is not None and (url := session.sparkContext.uiWebUrl):
                shows(url)
            yield session
        finally:
            _stop(session)


def _submitted() -> bool:
    """Whether spark-submit has started the JVM: then master, memory and jars are what it was told."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def _require_unsubmitted(server: str | None, master: str | None) -> None:
    """What is only of use where spark-submit has not started Spark."""
    if _submitted() and server is not None:
        raise ConfigError(
            "spark-submit has started Spark already",
            field=connect.VARIABLE,
            value=connect.shown(server),
            expected=f"no {connect.VARIABLE} with spark-submit",
            hint=f"unset {connect.VARIABLE}, or start `tidegate batch` without spark-submit",
        )
    if _submitted() and master is not None:
        raise ConfigError(
            "spark-submit has started Spark already",
            field="--master",
            value=master,
            expected="no --master behind the script",
            hint="give --master to spark-submit, before the script",
        )


def _require_jars() -> None:
    """Spark's own error for a missing source comes late and names a class."""
    context: Any = SparkContext._active_spark_context
    try:
        context._jvm.java.lang.Thread.currentThread().getContextClassLoader().loadClass(_KAFKA_SOURCE)
    except Exception as error:
        raise StackError(
            f"spark-submit was not given Spark's Kafka jars ({_KAFKA_SOURCE} is missing); "
            'give it: --jars "$(tidegate jars --spark-jars)"'
        ) from error


def _of_the_jvm(master: str) -> dict[str, str]:
    """What can only be said before the JVM starts, or belongs to the master."""
    local = master.startswith("local")
    return {
        "spark.master": master,
        "spark.driver.memory": _HEAP,
        # Read from where they are: nothing is copied, nothing asked of a registry.
        "spark.driver.extraClassPath": f"{jars.ensure('spark')}/*",
        "spark.jars": "" if local else jars.listed("spark"),
        # The host's name often resolves to an address that it does not listen on.
        **({"spark.driver.bindAddress": _LOOPBACK, "spark.driver.host": _LOOPBACK} if local else {}),
        "spark.driver.extraJavaOptions": f"{JAVA_OPTIONS} -Dlog4j2.configurationFile={_LOGGING}",
    }


def _conf(name: str, scratch: Path, master: str | None) -> dict[str, str]:
    return {
        **({} if _submitted() else _of_the_jvm(master or _LOCAL)),
        "spark.app.name": name,
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.adaptive.enabled": "false",
        "spark.sql.shuffle.partitions": "1",  # nothing is shuffled: a partition's records stay in one task
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
        "spark.local.dir": str(scratch / "local"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        # Handlers are looked for in the working directory, where a worker finds them.
        "spark.executorEnv.PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")])),
    }


@contextmanager
def _environment(master: str | None) -> Iterator[None]:
    """Executors run this very Python: Spark would take the first `python3` of PATH, which has no tidegate."""
    wanted = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
    if (java := find_java()).parent.name == "bin":
        wanted["JAVA_HOME"] = str(java.parent.parent)
    if (master or _LOCAL).startswith("local") and not _submitted():
        wanted["SPARK_LOCAL_IP"] = _LOOPBACK  # else Spark warns of the address that the host's name resolves to
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _start(conf: Mapping[str, str]) -> SparkSession:
    if SparkContext._active_spark_context is not None:
        raise StackError("this process has a Spark session already")
    builder = SparkSession.builder
    for name, value in conf.items():
        if value:
            builder = builder.config(name, value)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with silent_about_pandas():
        importlib.import_module("pyspark.testing.utils")  # Spark would import it in the middle of some later call
    try:
        return builder.getOrCreate()
    except Exception as error:
        raise StackError(f"Spark does not start: {str(error).strip().splitlines()[0]}") from error
    finally:
        # Spark's own handler of Ctrl-C cancels the micro-batch in hand; a run lets it end.
        with contextlib.suppress(ValueError):  # not the main thread, which alone has handlers
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _stop(session: SparkSession) -> None:
    """Stop Spark, then the JVM, and wait until it has gone."""
    gateway: Any = SparkContext._gateway
    process: subprocess.Popen[bytes] | None = getattr(gateway, "proc", None)
    with contextlib.suppress(Exception):  # a JVM that has died cannot be stopped in good order
        session.stop()
    if gateway is None or process is None:
        return
    with contextlib.suppress(Exception):
        gateway.shutdown()
    with contextlib.suppress(OSError):
        if process.stdin is not None:
            process.stdin.close()
    try:
        process.wait(_JVM_ENDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    SparkContext._gateway = SparkContext._jvm = None
