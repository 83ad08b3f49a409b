"""A letter as Kafka takes it: key and value are the original bytes and all else is headers. The record's own come first,
then `tidegate.dlq.*`, then those of one dialect."""

from __future__ import annotations

from hashlib import sha256

from dlq import headers as h
from dlq.dialects import DIALECTS
from dlq.encoding import encode_fitting_reasons, encode_reasons
from dlq.kind import Kind
from dlq.letter import Letter
from dlq.limits import MAX_HEADERS_BYTES, MAX_KEY_BYTES, MAX_REASONS_BYTES, cut_headers, cut_stack, header_size
from dlq.own_headers import own_headers
from dlq.template import Template, Values
from tidegate.config.queue import DeadLetterConfig
from tidegate.headers import Header, Headers
from tidegate.recordformat import PackedHeaders


class LetterWriter:
    """Writes the letters of one batch. It remembers what their kinds share: it is not for longer than that."""

    def __init__(self, config: DeadLetterConfig) -> None:
        self._config, self._largest_value = config, config.max_value_bytes
        self._shared: dict[Kind, Template] = {}

    def record(self, letter: Letter) -> tuple[bytes | None, bytes | None, Headers]:
        """Key, value and headers for the dead-letter topic, each cut to its limit (dlq/limits.py)."""
        template = self._template(letter.kind)
        key, value, ahead, values, more = self._parts(letter, template)
        return key, value, template.fill(ahead, values, more)

    def packed(self, letter: Letter) -> tuple[bytes | None, bytes | None, PackedHeaders]:
        """The same with the headers in Kafka's form, for a producer that takes them so: in a third of the time."""
        template = self._template(letter.kind)
        key, value, ahead, values, more = self._parts(letter, template)
        return key, value, template.pack(ahead, values, more)

    def _parts(
        self, letter: Letter, template: Template
    ) -> tuple[bytes | None, bytes | None, tuple[Header, ...], Values, Headers]:
        """Key, value, the record's own headers, what is put into the template, and what few letters have."""
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
        more: Headers = [] if letter.traceparent is None else [(h.TRACE, letter.traceparent.encode())]
        if cut:
            more.append((h.TRUNCATED, ",".join(sorted(cut)).encode()))
        if size is not None and digest is not None:
            more += [(h.VALUE_SIZE, b"%d" % size), (h.VALUE_SHA256, digest.encode())]
        values = template.values(letter.id, reasons, letter.offset, letter.timestamp)
        return key, value, headers, values, more

    def _template(self, kind: Kind) -> Template:
        template = self._shared.get(kind)
        if template is None:
            stack = None if kind.stack is None else cut_stack(kind.stack, self._config.max_stack_bytes)
            dialect = DIALECTS[self._config.dialect].write(kind, stack)
            template = self._shared[kind] = Template(own_headers(kind, stack), dialect)
        return template
