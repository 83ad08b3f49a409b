"""What Arrow loads by itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa


class _NoPandas(MetaPathFinder):
    """Finds that there is no pandas."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError(f"{fullname} is left out", name=fullname)


def leave_pandas_out() -> None:
    """Nothing here uses pandas, but the first array that Arrow makes imports it, to recognise its types: 30 MB and a quarter of
    a second. To be called before that. A handler that asks for pandas, as by `to_pandas()`, gets it: Arrow then looks again.
    """
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
