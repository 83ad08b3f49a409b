"""What the PostgreSQL store needs besides its tables: a login, and views that change with the pipeline file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url

from tests.contract.postgres_stores import PLAN, TP, Open, as_user, kill_others, sql
from tests.contract.store_records import Flight, batch_of, flights_plan
from tidegate.config.sinks import PostgresSink
from tidegate.errors import ConfigError, LoginRefused
from tidegate.store import open_store

if TYPE_CHECKING:
    from tests.providers.postgres import Database

pytestmark = [pytest.mark.postgres, pytest.mark.slow]  # each has a fresh database


@pytest.mark.parametrize("wrong", ["password", "user", "database", "rights", "no password"])
def test_a_login_that_is_refused_at_the_start_is_a_wrong_setting(postgres: Database, role: str, wrong: str) -> None:
    """Not an outage, which would be waited for: the error names the setting and says what the server says."""
    url = make_url(as_user(postgres.url, role))
    if wrong == "rights":
        sql(postgres, f"ALTER ROLE {role} NOLOGIN")
    changed: dict[str, Any] = {
        "password": {"password": "secret-y"},
        "user": {"username": "nobody"},
        "database": {"database": "nowhere"},
        "rights": {},
        "no password": {"password": ""},
    }[wrong]
    given = url.set(**changed).render_as_string(hide_password=False)
    store = open_store(PLAN, PostgresSink.model_validate({"type": "postgres", "url": given}))
    said = {"database": 'database "nowhere" does not exist', "rights": "is not permitted to log in"}
    otherwise = "no password supplied" if wrong == "no password" else "authentication failed"
    with pytest.raises(ConfigError, match=f"sinks.url: .*{said.get(wrong, otherwise)}") as caught:
        store.prepare()
    assert "secret-y" not in str(caught.value)
    store.close()


def test_a_login_that_is_refused_later_is_an_outage(opened: Open, postgres: Database, role: str) -> None:
    """A password that somebody has changed may be changed back: until then StoreUnavailable, and then it goes on."""
    opened()
    sql(postgres, f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    store = opened(url=as_user(postgres.url, role))
    sql(postgres, f"ALTER ROLE {role} PASSWORD 'other'")
    kill_others(postgres)
    with pytest.raises(LoginRefused, match="refuses the login: password authentication failed"):
        store.claim([TP], "w1")
    sql(postgres, f"ALTER ROLE {role} PASSWORD 'x'")
    assert store.claim([TP], "w1")[TP].epoch == 1
    store.close()


def test_measures_and_groups_in_another_order_are_the_same_results(opened: Open, postgres: Database, role: str) -> None:
    """PostgreSQL does not move a view's columns: those that readers know stay where they are, with what stands on them."""
    plan = flights_plan(measures=["flights", "delay_sum"], groups=["per_origin_and_day"])
    store = opened(plan)
    store.claim([TP], "w1")
    first = batch_of(plan, TP, [Flight(0, delay=3)])
    store.write(first)
    sql(postgres, f"GRANT SELECT ON per_origin_and_day TO {role}")
    sql(postgres, "CREATE VIEW theirs AS SELECT delay_sum, flights FROM per_origin_and_day")
    [aggregation] = plan.aggregations
    turned = replace(aggregation, measures=aggregation.measures[::-1], group=aggregation.group[::-1])
    turned_plan = replace(plan, aggregations=(turned,))
    again = opened(turned_plan)
    again.write(batch_of(turned_plan, TP, [Flight(1, delay=4)], before=first.state))
    assert sql(postgres, "SELECT delay_sum, flights FROM theirs") == [(7, 2)]
    assert sql(postgres, f"SELECT has_table_privilege('{role}', 'per_origin_and_day', 'SELECT')") == [(True,)]


def test_a_measure_of_another_kind_makes_the_view_anew(opened: Open, postgres: Database, role: str) -> None:
    """An average has the partials of a sum, and another type: who may read the view still may; a view of somebody else's
    that stands on it is named."""
    plan, other = (flights_plan(measures=[name], groups=["overall"]) for name in ("delay_sum", "delay_avg"))
    store = opened(plan)
    store.claim([TP], "w1")
    store.write(batch_of(plan, TP, [Flight(0, delay=3), Flight(1, delay=4)]))
    sql(postgres, f"GRANT SELECT ON overall TO {role}")
    sql(postgres, "GRANT SELECT ON overall TO PUBLIC")
    [aggregation] = other.aggregations
    [average] = aggregation.measures
    partials = tuple(replace(one, name=one.name.replace("delay_avg", "delay_sum")) for one in average.partials)
    average = replace(average, name="delay_sum", partials=partials)
    other = replace(other, aggregations=(replace(aggregation, measures=(average,)),))
    sql(postgres, "CREATE VIEW theirs AS SELECT delay_sum FROM overall")
    with pytest.raises(ConfigError, match=r"view theirs depends on(.|\n)*drop those"):
        opened(other)
    sql(postgres, "DROP VIEW theirs")
    opened(other)
    assert sql(postgres, "SELECT delay_sum FROM overall") == [(3.5,)]
    may = f"SELECT has_table_privilege('{role}', 'overall', 'SELECT'), relacl::text LIKE '%,=r/%' FROM pg_class"
    assert sql(postgres, f"{may} WHERE relname = 'overall'") == [(True, True)]
