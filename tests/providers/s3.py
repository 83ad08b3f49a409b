"""moto's S3 server in this process: it can be stopped and started again, with what is in it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.server import ThreadedMotoServer

from tests.harness import free_port

KEYS = {"aws_access_key_id": "me", "aws_secret_access_key": "geheim12", "region_name": "eu-north-1"}


class S3Server:
    """`.config(bucket)` for a pipeline's queue; `.objects(bucket)`: name → bytes."""

    def __init__(self) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._server: ThreadedMotoServer | None = None
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)  # a line for each request

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        """Away: connections are refused."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    @property
    def client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.url, **KEYS)

    def bucket(self) -> str:
        """A new one: what is in a server outlives it."""
        name = f"letters-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": KEYS["region_name"]})
        return name

    def config(self, bucket: str, **settings: Any) -> dict[str, Any]:
        return {"bucket": bucket, "endpoint_url": self.url, **KEYS, **settings}

    def objects(self, bucket: str) -> dict[str, bytes]:
        client = self.client
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        names = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return {name: client.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names}


@contextmanager
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    try:
        yield server
    finally:
        server.stop()
