"""Malformed records for `--poison`: all real flights decode, and a demo should show what happens when one does not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tidegate.demo.flights import Departure

_SEED = 2013  # the same poison in every run


@dataclass(frozen=True, slots=True)
class Poison:
    """A way to spoil a value. `skipped`: the pipeline passes over it (a tombstone) instead of dead-lettering it."""

    name: str
    spoil: Callable[[bytes], bytes | None]
    skipped: bool = False


POISONS = (
    Poison("truncated JSON", lambda value: value[: len(value) // 2]),
    Poison("bad UTF-8", lambda value: value.replace(b'"dest":"', b'"dest":"\xff\xfe')),
    Poison("wrong type", lambda value: value.replace(b'"distance":', b'"distance":"far",  "was":')),
    Poison("missing field", lambda value: value.replace(b'"origin":', b'"airport":')),
    Poison("overflow", lambda value: value.replace(b'"flight":', b'"flight":99999999999')),
    Poison("empty value", lambda value: b""),
    Poison("not an object", lambda value: b"[" + value + b"]"),
    Poison("tombstone", lambda value: None, skipped=True),
)


def with_poison(departures: list[Departure], count: int) -> Iterator[Departure]:
    """The departures with `count` spoiled copies of some of them strewn in, each right after its original."""
    chance = random.Random(_SEED)
    places = sorted(chance.choices(range(len(departures)), k=count)) if departures else []
    kinds = iter([POISONS[number % len(POISONS)] for number in range(len(places))])
    upcoming = iter([*places, -1])
    place = next(upcoming)
    for index, departure in enumerate(departures):
        yield departure
        while index == place:
            kind = next(kinds)
            assert departure.value is not None
            yield replace(departure, row=None, value=kind.spoil(departure.value), poison=kind.name)
            place = next(upcoming)
