"""A letter as Kafka takes it: key and value are the original bytes and all else is headers. The record's own come first,
then `tidegate.dlq.*`, then those of one dialect."""

from __future__ import annotations

from hashlib import sha256

from dlq import headers as h
from dlq.dialects import DIALECTS, Headers, WriteAt
from dlq.encoding import encode_fitting_reasons, encode_reasons
from dlq.kind import Kind
from dlq.letter import Letter
from dlq.limits import MAX_HEADERS_BYTES, MAX_KEY_BYTES, MAX_REASONS_BYTES, cut_headers, cut_stack, header_size
from dlq.own_headers import OwnHeaders
from tidegate.config.queue import DeadLetterConfig


class LetterWriter:
    """Writes the letters of one batch. It remembers what their kinds share: it is not for longer than that."""

    def __init__(self, config: DeadLetterConfig) -> None:
        self._config, self._largest_value = config, config.max_value_bytes
        self._shared: dict[Kind, tuple[OwnHeaders, WriteAt]] = {}

    def record(self, letter: Letter) -> tuple[bytes | None, bytes | None, Headers]:
        """Key, value and headers for the dead-letter topic, each cut to its limit (dlq/limits.py)."""
        own, dialect = self._shared.get(letter.kind) or self._share(letter.kind)
        cut = set(letter.truncated)
        key, value, size, digest = letter.key, letter.value, letter.value_size, letter.value_sha256
        if value is not None and len(value) > self._largest_value:
            cut.add("value")
            if size is None:  # a letter that was cut before keeps what was said of the whole value
                size, digest = len(value), sha256(value).hexdigest()
            value = value[: self._largest_value]
        if key is not None and len(key) > MAX_KEY_BYTES:
            cut.add("key")
            key = key[:MAX_KEY_BYTES]
        headers = letter.headers
        if headers and sum(header_size(*header) for header in headers) > MAX_HEADERS_BYTES:
            cut.add("headers")
            headers = cut_headers(headers)
        reasons = encode_reasons(letter.reasons)
        if len(reasons) > MAX_REASONS_BYTES:
            cut.add("reasons")
            reasons = encode_fitting_reasons(letter.reasons)
        told: Headers = [(h.TRUNCATED, ",".join(sorted(cut)).encode())] if cut else []
        if size is not None and digest is not None:
            told += [(h.VALUE_SIZE, b"%d" % size), (h.VALUE_SHA256, digest.encode())]
        return key, value, [*headers, *own.of(letter, reasons), *told, *dialect(letter.offset, letter.timestamp)]

    def _share(self, kind: Kind) -> tuple[OwnHeaders, WriteAt]:
        stack = None if kind.stack is None else cut_stack(kind.stack, self._config.max_stack_bytes)
        shared = self._shared[kind] = OwnHeaders(kind, stack), DIALECTS[self._config.dialect].write(kind, stack)
        return shared
