"""A Spark Connect server for tests, in a process of its own: `address` is what SPARK_REMOTE is set to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pyspark

from tests.harness import ROOT, free_port, wait_until
from tests.providers.availability import unavailable
from tidegate.local.java import find_java

_HOME = Path(pyspark.__file__).parent
_SERVER = "org.apache.spark.sql.connect.service.SparkConnectServer"


@dataclass(slots=True)
class ConnectServer:
    """`log`: what it says."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"sc://127.0.0.1:{self.port}"

    def require_up(self) -> None:
        """Wait until it takes connections."""
        wait_until(lambda: self.process.poll() is not None or self._listens(), 200, "the Spark Connect server")
        assert self.process.poll() is None, self.log.read_text()[-3000:]

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


def require_packages() -> None:
    """Skips, or fails if they are required, without the packages that clients need."""
    if find_spec("grpc") is None:
        unavailable("connect", "grpcio is not installed: uv sync, or pip install 'tidegate[connect]'")


@contextmanager
def connect_server(directory: Path) -> Iterator[ConnectServer]:
    """Started, and perhaps not up yet, so that a test can do something meanwhile. It has two cores, and knows no more of
    tidegate than where Python finds it."""
    require_packages()
    port, log = free_port(), directory / "connect.log"
    options = {
        "spark.connect.grpc.binding.port": port,
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": directory,
        "spark.sql.warehouse.dir": directory / "warehouse",
    }
    environment = {
        "SPARK_HOME": str(_HOME), "SPARK_LOCAL_IP": "127.0.0.1", "JAVA_HOME": str(find_java().resolve().parent.parent),
        "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    confs = [part for name, value in options.items() for part in ("--conf", f"{name}={value}")]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(_HOME / "bin" / "spark-submit"), "--class", _SERVER, "--master", "local[2]", *confs, "spark-internal"],
            env={**os.environ, **environment},
            cwd=directory,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield ConnectServer(process, port, log)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
