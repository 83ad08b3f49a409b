"""Which failures are the same failure: a short hash of what stays when the values in a message change.

The idea is Sentry's message parameterization (docs.sentry.io/concepts/data-management/event-grouping): numbers, ids,
timestamps and quoted values become a placeholder before the message is hashed, so that one cause makes one group.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

# A message is mostly template in its beginning and mostly data in its end; and the expressions below stay linear in it.
_MESSAGE_CHARACTERS = 1000

_VARIABLE = re.compile(
    r"""
      (?<!\w)"(?:[^"\\]|\\.)*(?:"|\\?$)       # "quoted" with \" inside, or cut off before the closing quote
    | (?<!\w)'(?:[^'\\]|\\.|'(?=\w))*(?:'|\\?$) # 'quoted', also 'O'Brien'; but not the apostrophe of "can't"
    | (?<!\w)`[^`]*(?:`|$)
    | \{[^\n]*\} | \[[^\n]*\]                # JSON, lists
    | [\w.+:/@-]*\d[\w.+:/@%-]*              # whatever has a digit: numbers, UUIDs, timestamps, addresses, offsets
    | \b[0-9a-fA-F]{8,}\b                    # hexadecimal that happens to have none
    | \b(?:true|false|null|None|True|False|NaN|nan|inf|Infinity)\b
    """,
    re.VERBOSE | re.DOTALL,
)
_REPEATED = re.compile(r"-?\?(?:[\s,.:;/-]*\?)*")


def normalise(message: str) -> str:
    """`message` with everything that varies from record to record replaced by `?`."""
    return _REPEATED.sub("?", _VARIABLE.sub("?", message[:_MESSAGE_CHARACTERS])).strip()


@lru_cache(maxsize=8192)
def fingerprint(stage: str, error_type: str, rule: str | None, field: str | None, message: str) -> str:
    """12 hexadecimal digits, the same for the same failure of different records, on every machine and in every version.

    `field` counts without its array indices: `items[3].price` is the field `items[].price`.
    """
    path = re.sub(r"\d+", "", field or "")
    parts = "\x1f".join((stage, error_type, rule or "", path, normalise(message)))
    return blake2b(parts.encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()
