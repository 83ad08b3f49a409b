"""What somebody may see of a record to edit it, and what becomes of what they write."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from dlq.index.masking import Masker
from dlq.replay.editing import edited, shown, written
from tests.unit.dlq.dead_letters import envelope
from tidegate.config.deadletters import Mask
from tidegate.errors import ConfigError

MASKS = Masker((Mask(path="card"), Mask(path="owner.name"), Mask(regex="SECRET[0-9]+")))
NONE = Masker(())
LETTER = {"letter": 1, "id": "flights-1-2", "dlq_topic": "flights.dlq"}
VALUE = b'{"n": 1.10, "card": "4111", "owner": {"name": "Ada", "age": 12345678901234567890123}, "list": ["SECRET1", 2]}'


def original(value: bytes | None = VALUE, key: bytes | None = b"k") -> Any:
    return replace(envelope(), key=key, value=value, truncated=())


def test_what_is_masked_is_not_shown() -> None:
    """Masks stand in the text, in the key too where it repeats what is masked; numbers are shown as they are written."""
    key, value = shown(original(key=b"for 4111"), MASKS)
    assert value is not None
    for secret in ("4111", "Ada", "SECRET1"):
        assert secret not in value
    assert key == "for ***"
    assert '"n": 1.10' in value
    assert "12345678901234567890123" in value


@pytest.mark.parametrize("value", [None, b"\xff\x00", b'{"card": "4111"', b"4111 is no JSON {"])
def test_what_masks_cannot_look_into_is_not_shown(value: bytes | None) -> None:
    """Null, binary and broken JSON: nothing of it is shown where fields are masked."""
    assert shown(original(value), MASKS).value is None


def test_without_masks_text_is_shown_as_it_is() -> None:
    """Broken JSON as well, since that is what people mend."""
    assert shown(original(b'{"a": NaN}'), NONE).value == '{"a": NaN}'


def test_a_field_that_still_holds_its_mask_keeps_what_was_in_it() -> None:
    """Somebody changes one field of what they see; the masked ones are sent as they were, byte for byte, and the key too."""
    before = original(key=b"for 4111")
    key, value = shown(before, MASKS)
    assert value is not None
    new_key, new_value = written(before, key, value.replace("1.10", "2.50"), MASKS, indented=True)
    assert new_key == b"for 4111"
    assert new_value is not None
    assert new_value.replace(b" ", b"") == VALUE.replace(b"1.10", b"2.50").replace(b" ", b"")
    edited(LETTER, before, (new_key, new_value), MASKS, None)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ('{"card": "***", "n": "changed", "list": ["***", 3]}', r"value\.list\[0\]"),
        ('{"card": "***"', "value"),
    ],
)
def test_a_mask_is_never_sent(value: str, field: str) -> None:
    """A mask inside a list that was changed, or in what is no JSON, is refused and says where it is."""
    with pytest.raises(ConfigError, match=field):
        edited(LETTER, original(), written(original(), None, value, MASKS), MASKS, None)


@pytest.mark.parametrize("masks", [NONE, MASKS], ids=["without masks", "with masks"])
def test_nothing_changed_is_said(masks: Masker) -> None:
    """Sent as it was shown, or only indented otherwise, there is nothing to send."""
    key, value = shown(original(), masks)
    assert value is not None
    for same in (value, json.dumps(json.loads(value.replace("1.10", '"1.10"')), indent=7).replace('"1.10"', "1.10")):
        with pytest.raises(ConfigError, match="nothing was changed"):
            edited(LETTER, original(), written(original(), key, same, masks, indented=True), masks, None)


def test_an_empty_value_is_not_sent_by_mistake() -> None:
    """Who empties the box does not send an empty record; where nothing was shown, an empty box leaves it as it was."""
    with pytest.raises(ConfigError, match="no value"):
        written(original(), None, "  ", NONE)
    assert written(original(None), "new", "", NONE) == (b"new", None)


def test_what_was_cut_has_to_be_given_whole() -> None:
    """A new key alone would send half a value."""
    cut = replace(original(), truncated=("value",))
    with pytest.raises(ConfigError, match="value did not fit and was cut"):
        edited(LETTER, cut, (b"new", VALUE), NONE, None)
    edited(LETTER, cut, (b"k", b"{}"), NONE, None)
