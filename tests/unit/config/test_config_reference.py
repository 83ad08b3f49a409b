"""docs/configuration.md says what the models say."""

from __future__ import annotations

from pathlib import Path

from tidegate.config.fields import alias_of
from tidegate.config.pipeline import Pipeline
from tidegate.config.reference import PAGE, models_below, render

ROOT = Path(__file__).parents[3]


def test_page_is_up_to_date() -> None:
    """The page is what the models render to; if not: `python -m tidegate.config.reference`."""
    assert (ROOT / PAGE).read_text(encoding="utf-8") == render()


def test_every_field_is_on_it() -> None:
    """Every field of every model has a row, and every model says what it is."""
    page = render()
    for model in models_below(Pipeline):
        assert f"## {model.__name__}\n" in page
        assert model.__doc__, model
        for name in model.model_fields:
            assert f"| `{alias_of(model, name)}` |" in page
