"""What a session behind Spark Connect cannot have."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from batch import connect, session
from batch.failure import engine_failed
from batch.options import Options
from batch.quiet import silent_about_pandas
from tests.providers.connect import require_packages
from tidegate.errors import ConfigError, StackError

SERVER = "sc://spark:15002"


@pytest.mark.parametrize(
    ("options", "ui", "field"),
    [
        (Options(master="local[2]"), False, "--master"),
        (Options(checkpoint=Path("/scratch")), False, "--checkpoint"),
        (Options(), True, "--ui"),
    ],
)
def test_an_option_that_only_a_session_of_its_own_has_is_refused(
    options: Options, ui: bool, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the option, and the variable to unset. Without the variable all of them are fine."""
    monkeypatch.delenv("SPARK_REMOTE", raising=False)
    connect.require_fit(options, ui=ui)
    monkeypatch.setenv("SPARK_REMOTE", SERVER)
    connect.require_fit(Options())
    with pytest.raises(ConfigError, match="or unset SPARK_REMOTE") as caught:
        connect.require_fit(options, ui=ui)
    assert caught.value.field == field


def test_a_session_is_never_of_another_master_than_it_was_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever opens it, the command line or a program."""
    monkeypatch.setenv("SPARK_REMOTE", SERVER)
    with (
        pytest.raises(ConfigError, match="with Spark Connect the server has its own"),
        session.spark_session("t", tmp_path, "local[2]"),
    ):
        pass


def test_only_a_servers_address_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """PySpark would take a master here as well, and start a server of its own in this process."""
    monkeypatch.setenv("SPARK_REMOTE", "local[2]")
    with pytest.raises(ConfigError, match="sc://host:15002") as caught:
        connect.server()
    assert caught.value.field == "SPARK_REMOTE"


def test_spark_submit_and_a_server_are_one_too_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is said of the server does not have its token."""
    monkeypatch.setenv("SPARK_REMOTE", f"{SERVER}/;token=secret")
    monkeypatch.setenv("PYSPARK_GATEWAY_PORT", "1")
    with (
        pytest.raises(ConfigError, match="without spark-submit") as caught,
        session.spark_session("t", tmp_path, None),
    ):
        pass
    assert caught.value.field == "SPARK_REMOTE"
    assert caught.value.value == "spark:15002"


def test_packages_that_are_missing_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC is no part of an installation without it."""
    for name in [name for name in sys.modules if name.startswith("pyspark.sql.connect")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grpc", None)
    # PySpark takes a process without one, as pytest-xdist's are, for its doctests, and ends it.
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "tests", raising=False)
    with pytest.raises(StackError, match=r"pip install 'tidegate\[connect\]'"), connect.connected(SERVER):
        pass


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The channels to servers that are closed, in the order in which that is done; no server is there."""
    require_packages()
    found = list[Any]()

    def close(channel: Any) -> None:
        found.append(channel)
        real(channel)

    with silent_about_pandas():
        importlib.import_module("pyspark.sql.connect.session")
    real = importlib.import_module("grpc._channel").Channel.close
    monkeypatch.setattr("grpc._channel.Channel.close", close)
    return found


@pytest.mark.slow
def test_a_session_is_closed_once(closed: list[Any]) -> None:
    """And not again by PySpark while the interpreter ends: the process then waited for a thread of gRPC's that had ended."""
    opened = importlib.import_module("pyspark.sql.connect.session").SparkSession(connection="sc://127.0.0.1:1")
    connect._close(opened)
    assert len(closed) == 1
    opened.__del__()
    opened.client._on_exit()
    assert len(closed) == 1


@pytest.mark.slow
@pytest.mark.parametrize("ended", [KeyboardInterrupt, OSError])
def test_a_session_that_comes_to_nothing_is_closed(
    closed: list[Any], ended: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever has ended it: a server that does not answer, or whoever does not want to wait for it."""

    def interrupted(*_: object) -> None:
        raise ended

    monkeypatch.setattr("pyspark.sql.connect.conf.RuntimeConf.set", interrupted)
    expected = KeyboardInterrupt if ended is KeyboardInterrupt else StackError
    with pytest.raises(expected) as caught, connect.connected(SERVER):
        pass
    assert len(closed) == 1
    del caught  # by which the session was kept from being deleted, and closed by that


class SparkConnectGrpcException(Exception):
    """As PySpark raises it for an error that Spark itself has not said; that of gRPC is its context."""


class RpcError(Exception):
    def details(self) -> str:
        return "Connection refused"


def test_a_server_that_has_gone_is_said() -> None:
    """In one line, not in gRPC's seven."""
    error = SparkConnectGrpcException("<_InactiveRpcError of RPC that terminated with:\n\tstatus = …\n>")
    error.__context__ = RpcError()
    expected = "Spark ended a micro-batch: its server does not answer any more, or not as it should: Connection refused"
    assert str(engine_failed("a micro-batch", error)) == expected
