"""What happens to a test whose server cannot be had, and whether Docker may be asked for one."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NoReturn

import pytest

from tidegate.errors import StackError


def unavailable(server: str, reason: str) -> NoReturn:
    """Skip with the reason (and the way to install what is missing), or fail when TIDEGATE_REQUIRE names `server`."""
    required = [name.strip() for name in os.environ.get("TIDEGATE_REQUIRE", "").split(",")]
    if server in required:
        pytest.fail(f"TIDEGATE_REQUIRE={','.join(required)}, but there is no {server}: {reason}", pytrace=False)
    pytest.skip(f"no {server}: {reason}")


@contextmanager
def or_unavailable(server: str) -> Iterator[None]:
    """A StackError inside becomes a skip or a failure."""
    try:
        yield
    except StackError as error:
        unavailable(server, str(error))


def docker_answers() -> bool:
    """TIDEGATE_TEST_DOCKER=1 and a Docker daemon that answers."""
    if os.environ.get("TIDEGATE_TEST_DOCKER") != "1":
        return False
    import docker  # type: ignore[import-untyped]  # it has no stubs

    with warnings.catch_warnings():
        # docker's client does not close the socket that it could not connect.
        warnings.simplefilter("ignore", ResourceWarning)
        answers = _ping(docker)
        gc.collect()
    return answers


def _ping(docker: ModuleType) -> bool:
    try:
        client = docker.from_env(timeout=5)
    except docker.errors.DockerException:
        return False
    try:
        return bool(client.ping())
    except docker.errors.APIError:
        return False
    finally:
        client.close()
