"""What is done to Arrow tables in another way than Arrow does it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tidegate.arrow import where


@given(
    parts=st.lists(
        st.lists(st.tuples(st.none() | st.text(), st.none() | st.integers(-9, 9), st.booleans())),
        min_size=1,
        max_size=3,
    )
)
def test_where_is_the_filter_of_a_table(parts: list[list[tuple[str | None, int | None, bool]]]) -> None:
    """Rows, nulls and types are those that Arrow's own filter gives, whatever chunks the table is of."""
    schema = pa.schema([("s", pa.string()), pa.field("n", pa.int64(), nullable=True)])
    columns = [[[row[at] for row in part] for at in (0, 1)] for part in parts]
    table = pa.concat_tables([pa.table(part, schema=schema) for part in columns])
    flags = np.array([kept for part in parts for _, _, kept in part], dtype=np.bool_)
    assert where(table, flags).equals(table.filter(pa.array(flags)), check_metadata=True)
