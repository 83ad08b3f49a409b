"""How S3 is reached, or a service that speaks its language: by boto3's names, wherever the pipeline file asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import ConfigDict, Field, SecretStr, model_validator

from tidegate.config.base import Model, Problem, refuse


class S3Access(Model):
    """Access to a bucket, by boto3's names and with its defaults (AWS_… variables, profiles, instance roles)."""

    model_config = ConfigDict(**{**Model.model_config, "alias_generator": None})

    region_name: str | None = Field(default=None, min_length=1)
    """S3: this and what follows up to `SSEKMSKeyId` are boto3's, with its defaults (AWS_… variables, profiles, roles)."""
    endpoint_url: str | None = Field(default=None, pattern=r"^https?://\S+$")
    """S3: of another service than Amazon's that speaks its language."""
    profile_name: str | None = Field(default=None, min_length=1)
    aws_access_key_id: str | None = Field(default=None, min_length=1)
    aws_secret_access_key: SecretStr | None = None
    aws_session_token: SecretStr | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """S3: whether the bucket is in the path of an address or in the name of the host."""
    server_side_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None, alias="ServerSideEncryption"
    )
    sse_kms_key_id: str | None = Field(default=None, min_length=1, alias="SSEKMSKeyId")

    @model_validator(mode="after")
    def _complete(self) -> S3Access:
        refuse(*self._credentials())
        return self

    def _credentials(self) -> Iterator[Problem]:
        if (self.aws_access_key_id is None) != (self.aws_secret_access_key is None):
            missing = "aws_access_key_id" if self.aws_access_key_id is None else "aws_secret_access_key"
            expected = "both, or neither: boto3 then finds them itself"
            yield Problem("a key and its secret go together", (missing,), expected)
        if self.sse_kms_key_id is not None and not (self.server_side_encryption or "").startswith("aws:kms"):
            expected = "`ServerSideEncryption: aws:kms` beside it"
            yield Problem("a key of KMS is for KMS only", ("sse_kms_key_id",), expected)
