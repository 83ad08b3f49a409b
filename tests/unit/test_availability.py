"""What a machine lacks skips its tests, and fails them where everything is asked for."""

from __future__ import annotations

import pytest

from tests.providers.availability import or_unavailable
from tidegate.errors import StackError

LACKING = "no Java 17: apt-get install openjdk-17-jre-headless"


def test_what_is_lacking_skips_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of somebody who tries it out."""
    monkeypatch.delenv("TIDEGATE_REQUIRE", raising=False)
    with pytest.raises(pytest.skip.Exception, match=LACKING), or_unavailable("kafka"):
        raise StackError(LACKING)


def test_what_is_lacking_fails_where_it_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI names all of it, and installs it beforehand."""
    monkeypatch.setenv("TIDEGATE_REQUIRE", "postgres, kafka")
    with pytest.raises(pytest.fail.Exception, match=f"there is no kafka: {LACKING}"), or_unavailable("kafka"):
        raise StackError(LACKING)
