"""A bucket of S3, or of a service that speaks its language. Its errors in our words: away, or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tidegate.config.s3 import S3Access
from tidegate.errors import BucketUnavailable, ConfigError

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

T = TypeVar("T")
_CONNECT, _READ = 5.0, 30.0  # seconds for one attempt; tries again are ours (tidegate/resilience)
_PASSING = frozenset({"RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "Throttling", "ThrottlingException"})
_QUEUE = "errorHandling.deadLetterQueue.config"


class Object(NamedTuple):
    """An object's name and its bytes."""

    key: str
    size: int


class Credentials(NamedTuple):
    """What boto3 has found, for other clients of S3."""

    key: str
    secret: str
    token: str | None


class Bucket:
    """Safe under threads. Nothing is asked before it is used."""

    def __init__(
        self, access: S3Access, name: str, *, field: str = _QUEUE, name_field: str = f"{_QUEUE}.bucket"
    ) -> None:
        """`field`, `name_field`: where the pipeline file says how it is reached, and which it is. Raises ConfigError."""
        import boto3  # a second of imports, which only those with S3 should wait for
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        self.name, self._access, self._field, self._name_field = name, access, field, name_field
        options = Config(
            retries={"total_max_attempts": 1},
            connect_timeout=_CONNECT,
            read_timeout=_READ,
            s3={"addressing_style": access.addressing_style},
        )
        try:
            self._session = boto3.session.Session(
                aws_access_key_id=access.aws_access_key_id,
                aws_secret_access_key=_secret(access.aws_secret_access_key),
                aws_session_token=_secret(access.aws_session_token),
                region_name=access.region_name,
                profile_name=access.profile_name,
            )
            self._client = self._session.client("s3", endpoint_url=access.endpoint_url, config=options)
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"no client for S3 can be made: {error}", field=field) from error

    @property
    def region(self) -> str | None:
        """Of the file, or what boto3 has found."""
        region: str | None = self._session.region_name
        return region

    def credentials(self) -> Credentials | None:
        """As they are now: temporary ones are renewed. None: there are none."""
        found = self._session.get_credentials()
        return None if found is None else Credentials(*found.get_frozen_credentials()[:3])

    def check(self) -> None:
        """Whether it is there and may be used. Raises ConfigError, BucketUnavailable."""
        self._ask("looked at", lambda: self._client.head_bucket(Bucket=self.name))

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Write an object, in the place of one that is there. Raises BucketUnavailable (it may be written), ConfigError."""
        encryption = {
            "ServerSideEncryption": self._access.server_side_encryption,
            "SSEKMSKeyId": self._access.sse_kms_key_id,
        }
        given = {name: value for name, value in encryption.items() if value is not None}
        self._ask(
            "written to",
            lambda: self._client.put_object(Bucket=self.name, Key=key, Body=body, ContentType=content_type, **given),
        )

    def get(self, key: str) -> bytes:
        """An object's bytes. Raises BucketUnavailable, ConfigError."""
        return self._ask("read", lambda: bytes(self._client.get_object(Bucket=self.name, Key=key)["Body"].read()))

    def objects(self, prefix: str) -> Iterator[Object]:
        """What begins with `prefix`, in the order of the names. Raises BucketUnavailable, ConfigError."""
        more: dict[str, Any] = {}
        while True:
            page = self._ask(
                "listed",
                lambda: self._client.list_objects_v2(Bucket=self.name, Prefix=prefix, **more),  # noqa: B023  # called before `more` changes
            )
            yield from (Object(one["Key"], int(one["Size"])) for one in page.get("Contents", ()))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _ask(self, done: str, ask: Callable[[], T]) -> T:
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            ConnectionError,
            HTTPClientError,
            IncompleteReadError,
            ReadTimeoutError,
        )

        away = (ConnectionError, HTTPClientError, IncompleteReadError, ReadTimeoutError)
        try:
            return ask()
        except ClientError as error:
            raise self._refused(done, error) from error
        except away as error:
            raise BucketUnavailable(f"s3://{self.name} cannot be {done}: {error}") from error
        except BotoCoreError as error:
            hint = "aws_access_key_id and aws_secret_access_key, profile_name, or what boto3 looks for itself"
            raise ConfigError(f"s3://{self.name} cannot be {done}: {error}", field=self._field, hint=hint) from error

    def _refused(self, done: str, error: ClientError) -> BucketUnavailable | ConfigError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status >= 500 or status == 429 or code in _PASSING:
            return BucketUnavailable(f"s3://{self.name} cannot be {done}: {error}")
        if code in ("NoSuchBucket", "404"):
            hint = "create it, or name another; and see region_name and endpoint_url"
            return ConfigError("there is no such bucket", field=self._name_field, value=self.name, hint=hint)
        return ConfigError(f"it may not be {done}: {error}", field=self._name_field, value=self.name)


def _secret(secret: Any) -> str | None:
    return None if secret is None else str(secret.get_secret_value())
