"""The partition row as bytes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.errors import TidegateError
from tidegate.ledger import Ledger
from tidegate.stages.batch import PartitionState
from tidegate.store.rows import decode_state, encode_state

COUNTS = st.integers(0, 2**63 - 1)
INSTANTS = st.none() | st.integers(-(2**63), 2**63 - 1)
STATES = st.builds(
    PartitionState,
    st.integers(-1, 2**63 - 1),
    INSTANTS,
    INSTANTS,
    st.builds(Ledger, *[COUNTS] * 8),
    st.booleans(),
    st.text(max_size=22),
)


@given(STATES)
def test_a_state_reads_back_as_it_was(state: PartitionState) -> None:
    """Every field survives the changelog."""
    assert decode_state(encode_state(state)) == state


def test_the_bytes_are_a_map_with_names() -> None:
    """Other programs can read the row without this class."""
    document = msgspec.msgpack.decode(encode_state(PartitionState(7, 5, None, Ledger(8, 8))))
    assert {name: document[name] for name in ("upto", "high_water", "dedupe_clock", "idle")} == {
        "upto": 7, "high_water": 5, "dedupe_clock": None, "idle": False,
    }  # fmt: skip
    assert document["ledger"]["accepted"] == 8


def test_a_row_of_another_version_is_read() -> None:
    """A field that is missing has its default; one that is unknown is skipped."""
    assert decode_state(msgspec.msgpack.encode({"upto": 3, "later": [1]})) == PartitionState(3)


@pytest.mark.parametrize("data", [b"", b"\xc1", msgspec.msgpack.encode({"upto": "three"}), b"[]"])
def test_other_bytes_are_named(data: bytes) -> None:
    """Bytes that are no partition row are shown in the error."""
    with pytest.raises(TidegateError, match="partition row cannot be read"):
        decode_state(data)
