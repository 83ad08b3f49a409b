"""`tidegate init` and `tidegate check`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from tidegate.cli.main import app
from tidegate.record import Stage

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

pytestmark = pytest.mark.slow  # the first check imports DuckDB

KEYED = """\
pipelineId: flights
source: {topics: [flights], key: {column: airport}}
schema: [{name: at, type: timestamp, unit: ms}, {name: delay, type: int}]
eventTime: {column: at}
aggregations:
  - {name: by_airport, window: {size: 1 hour}, groupBy: [airport], measures: {n: count}}
  - {name: all, window: {type: hopping, size: 1 hour, hop: 30 minutes}, measures: {mean: {type: avg, of: delay}}}
"""


def tidegate(*arguments: object, code: int = 0, env: dict[str, str] | None = None) -> str:
    """Run a command, check its exit code, return what it printed."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], env=env or {})
    assert done.exit_code == code, done.output
    return str(done.output)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def example(tmp_path: Path) -> Path:
    tidegate("init", tmp_path / "orders.yaml")
    return tmp_path / "orders.yaml"


def test_example_is_valid(example: Path) -> None:
    """What `init` writes passes `check` and is complete."""
    shown = tidegate("check", example)
    assert "valid" in shown.splitlines()
    assert "not complete" not in shown


def test_init_overwrites_only_when_told(example: Path) -> None:
    """A file that is there stays as it is, unless `--force` is given."""
    example.write_text("mine", encoding="utf-8")
    assert "--force" in tidegate("init", example, code=2)
    assert example.read_text(encoding="utf-8") == "mine"
    tidegate("init", example, "--force")
    assert "pipelineId: orders" in example.read_text(encoding="utf-8")


def test_init_says_why_it_cannot_write(tmp_path: Path) -> None:
    """A folder that is not there is named."""
    assert "cannot be written: No such file or directory" in tidegate("init", tmp_path / "no" / "a.yaml", code=2)


def test_plan_has_every_stage_in_order(example: Path) -> None:
    """The diagram names all stages from consume to commit, and where records that fail or are late go."""
    shown = tidegate("check", example)
    places = [shown.index(f"\n{stage.value} ") for stage in Stage]
    assert places == sorted(places)
    assert "dead letters   topic orders.dlq" in shown
    assert "late records   separateStream, topic orders.late" in shown


def test_plan_says_which_groups_spread(tmp_path: Path) -> None:
    """A group that holds the record's key stays in its partition; another spreads and needs the merge agent."""
    document = json.loads(tidegate("check", written(tmp_path / "a.yaml", KEYED), "--json"))
    assert [(each["name"], each["sizeMs"], each["hopMs"], each["spreads"]) for each in document["aggregations"]] == [
        ("by_airport", 3_600_000, 3_600_000, False),
        ("all", 3_600_000, 1_800_000, True),
    ]
    shown = tidegate("check", tmp_path / "a.yaml")
    assert "a group stays in one partition" in shown
    assert "the merge agent adds up its partials" in shown


def test_plan_says_whose_work_the_lakes_are(tmp_path: Path) -> None:
    """A worker runs the file too, and leaves these sinks to Spark."""
    sinks = 'sinks: [{type: postgres, url: "postgresql://h/d"}, {type: delta, path: "s3://b/lake", mode: append}]\n'
    shown = tidegate("check", written(tmp_path / "keyed.yaml", KEYED + sinks))
    assert "delta: delta in s3://b/lake (append): by_airport, all; by runs on Spark, not by a worker" in shown


def test_seed_alone_is_valid_and_says_what_is_missing(tmp_path: Path) -> None:
    """A file with only an id and errorHandling is valid; what it needs to run is named."""
    seed = Path(__file__).parents[2] / "corpus" / "settings" / "good" / "seed.json"
    assert "valid, but not complete: to run it needs source and schema" in tidegate("check", seed)
    document = json.loads(tidegate("check", seed, "--json"))
    assert (document["valid"], document["missing"]) == (True, ["source", "schema"])


def test_wrong_expression_is_named_with_its_line(tmp_path: Path) -> None:
    """An expression that does not fit the schema is refused with file, line, field and value."""
    text = KEYED.replace("of: delay", "of: dleay + 1")
    shown = tidegate("check", written(tmp_path / "a.yaml", text), code=2)
    assert "a.yaml:7: aggregations[1].measures.mean.of: " in shown
    assert "dleay + 1" in shown


def test_wrong_parts_do_not_hide_each_other(tmp_path: Path) -> None:
    """Rules, expressions and handlers are all checked, each error with its own line."""
    text = KEYED.replace("of: delay", "of: delay +") + (
        "rules:\n"
        '  - {type: regex, column: airport, pattern: "(["}\n'
        '  - {type: expect, expression: "delay + 1"}\n'
        "handlers:\n"
        '  - {call: "no.such:module"}\n'
    )
    document = json.loads(tidegate("check", written(tmp_path / "a.yaml", text), "--json", code=2))
    assert [(problem["line"], problem["field"]) for problem in document["problems"]] == [
        (9, "rules[0].pattern"),
        (10, "rules[1].expression"),
        (7, "aggregations[1].measures.mean.of"),
        (12, "handlers[0].call"),
    ]


def test_no_expression_column_or_handler_hides_another(tmp_path: Path) -> None:
    """Several that are wrong, in one aggregation and in two, in the schema, dedupe and handlers: each is named."""
    text = """\
pipelineId: flights
source: {topics: [flights]}
schema:
  - {name: at, type: timestamp, unit: ms}
  - {name: delay, type: int}
  - {name: x, type: timestamp, format: "%Q"}
  - {name: y, type: timestamp, format: "%J"}
eventTime: {column: at}
dedupe: {key: dely, horizon: 1 hour}
aggregations:
  - name: one
    window: {size: 1 hour}
    groupBy: [{name: half, expression: delay / 2}, {name: twice, expression: 2 * dealy}]
    measures: {n: count, s: {type: sum, of: dleay}, a: {type: avg, of: delay +}}
  - {name: two, window: {size: 1 hour}, measures: {mean: {type: avg, of: deyal}}}
handlers: [{call: "no.such:module"}, {call: "json:dmups"}]
"""
    document = json.loads(tidegate("check", written(tmp_path / "a.yaml", text), "--json", code=2))
    assert [problem["field"] for problem in document["problems"]] == [
        "schema[2].format",
        "schema[3].format",
        "dedupe.key",
        "aggregations[0].groupBy[0].expression",
        "aggregations[0].groupBy[1].expression",
        "aggregations[0].measures.s.of",
        "aggregations[0].measures.a.of",
        "aggregations[1].measures.mean.of",
        "handlers[0].call",
        "handlers[1].call",
    ]
    assert all(problem["line"] and problem["found"] and problem["expected"] for problem in document["problems"])


def test_handler_beside_the_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module in the working directory is found, as a worker started there finds it; a misspelt function is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "steps_beside.py").write_text("def enrich(record):\n    return record\n", encoding="utf-8")
    written(tmp_path / "a.yaml", KEYED + 'handlers: [{call: "steps_beside:enrich"}]\n')
    assert "steps_beside:enrich, a record at a time" in tidegate("check", "a.yaml")
    written(tmp_path / "a.yaml", KEYED + 'handlers: [{call: "steps_beside:enrch"}]\n')
    assert "did you mean 'enrich'?" in tidegate("check", "a.yaml", code=2)


def test_wrong_expression_from_the_environment_is_masked(tmp_path: Path) -> None:
    """What came from `${…}` is not shown by the errors that come after loading either."""
    text = KEYED.replace("of: delay", 'of: "${EXPRESSION}"')
    shown = tidegate("check", written(tmp_path / "a.yaml", text), code=2, env={"EXPRESSION": "geheim12"})
    assert "aggregations[1].measures.mean.of" in shown
    assert "********" in shown
    assert "geheim12" not in shown


def test_problems_as_json(tmp_path: Path) -> None:
    """`--json` gives each problem's file, line, field, value and what was expected; the exit code stays 2."""
    path = written(tmp_path / "a.yaml", "pipelineId: a\nsinck: []\ntelemetry: {port: -1}\n")
    document = json.loads(tidegate("check", path, "--json", code=2))
    first, second = document["problems"]
    assert document["valid"] is False
    assert (first["line"], first["field"], first["hint"]) == (2, "sinck", "did you mean 'sinks'?")
    assert (second["field"], second["found"], second["expected"]) == ("telemetry.port", "-1", "at least 0")


def test_missing_certificate_is_found_without_a_broker(tmp_path: Path) -> None:
    """Certificates are read by `check`."""
    path = written(tmp_path / "a.yaml", "pipelineId: a\nkafka:\n  tls: {caFile: /no/such/ca.pem}\n")
    shown = tidegate("check", path, code=2)
    assert "a.yaml:3: kafka.tls.caFile: this file cannot be used: No such file" in shown


LIVE = """\
pipelineId: {name}
kafka: {{bootstrapServers: "{kafka}"}}
source: {{topics: [{topic}]}}
schema: [{{name: at, type: timestamp, unit: ms}}]
eventTime: {{column: at}}
aggregations: [{{name: counts, window: {{size: 1 hour}}, measures: {{n: count}}}}]
sinks: [{{type: postgres, url: "{postgres}", schema: {schema}}}, {{type: kafka}}]
"""


def live(
    path: Path, code: int, *, template: str = LIVE, timeout: float = 60, **fields: str
) -> dict[str, dict[str, Any]]:
    """The answers of `check --live`, by what was asked. `timeout`: seconds for each, all of which only what is away takes."""
    defaults = {"name": "live-check", "topic": "live-check-source", "schema": "public"}
    written(path, template.format(**{**defaults, **fields}))
    document = json.loads(tidegate("check", path, "--live", "--json", "--timeout", timeout, code=code))
    return {answer["what"]: answer for answer in document["live"]}


def test_live_says_why_nothing_answers(tmp_path: Path) -> None:
    """A broker and a database that are away are named with the reason, without the password; exit code 1."""
    away = {"kafka": "127.0.0.1:1", "postgres": "postgresql://u:geheim12@127.0.0.1:1/db"}
    answers = live(tmp_path / "a.yaml", 1, timeout=3, **away)
    assert "connection refused" in answers["kafka 127.0.0.1:1"]["text"]
    assert "Connection refused" in answers["postgres 127.0.0.1/db"]["text"]
    assert not any(answer["good"] for answer in answers.values())
    assert "geheim12" not in str(answers)


@pytest.mark.kafka
@pytest.mark.postgres
def test_live_counts_partitions_and_asks_the_version(tmp_path: Path, kafka: KafkaTopics, postgres: Database) -> None:
    """With everything there, partitions and version are shown; topics to be created are no failure; exit code 0."""
    topic = kafka.topic(partitions=3)
    answers = live(tmp_path / "a.yaml", 0, kafka=kafka.bootstrap_servers, postgres=postgres.url, topic=topic)
    assert answers[f"source topic {topic}"]["text"] == "3 partitions"
    assert answers["dead-letter topic live-check.dlq"]["text"] == "not there yet: the worker creates it"
    assert any(answer["text"].startswith("version ") for answer in answers.values())


@pytest.mark.kafka
@pytest.mark.postgres
def test_live_names_a_topic_that_would_forget_state(tmp_path: Path, kafka: KafkaTopics, postgres: Database) -> None:
    """A changelog that somebody made without compaction is a failure with the command that mends it; exit code 1."""
    topic = kafka.topic()
    good = kafka.topic(name=f"{topic}..watermarks", config={"cleanup.policy": "compact"})
    bad = kafka.topic(name=f"{topic}..changelog.{topic}")
    kept = {"kafka": kafka.bootstrap_servers, "postgres": postgres.url, "topic": topic, "name": topic}
    answers = live(tmp_path / "a.yaml", 1, **kept)
    assert answers[f"topic of state {good}"] == {"what": f"topic of state {good}", "good": True, "text": "1 partition"}
    assert not answers[f"topic of state {bad}"]["good"]
    assert "cleanup.policy is 'delete'" in answers[f"topic of state {bad}"]["text"]
    assert f"--topic {bad} --add-config cleanup.policy=compact" in answers[f"topic of state {bad}"]["text"]


@pytest.mark.kafka
@pytest.mark.postgres
def test_live_says_what_growth_means(tmp_path: Path, kafka: KafkaTopics, postgres: Database) -> None:
    """Where groups are made by the record's key, a topic with more partitions than before splits results on Kafka."""
    topic = kafka.topic(partitions=6)
    kafka.topic(name=f"{topic}..changelog.{topic}", partitions=3, config={"cleanup.policy": "compact"})
    keyed = LIVE.replace("topics: [{topic}]", "topics: [{topic}], key: {{column: k}}")
    fields = {"kafka": kafka.bootstrap_servers, "postgres": postgres.url, "topic": topic, "name": topic}
    template = keyed.replace("window: {{size: 1 hour}}", "window: {{size: 1 hour}}, groupBy: [k]")
    growth = live(tmp_path / "a.yaml", 0, template=template, **fields)[f"growth of {topic}"]
    assert "3 partitions and has 6" in growth["text"]
    assert "counts gives on Kafka" in growth["text"]


@pytest.mark.kafka
@pytest.mark.postgres
def test_live_names_what_is_missing(tmp_path: Path, kafka: KafkaTopics, postgres: Database) -> None:
    """A source topic or a database schema that is not there is a failure; exit code 1."""
    answers = live(
        tmp_path / "a.yaml", 1, kafka=kafka.bootstrap_servers, postgres=postgres.url, topic="not-there", schema="nope"
    )
    assert answers["source topic not-there"] == {
        "what": "source topic not-there",
        "good": False,
        "text": "does not exist: create it",
    }
    assert [answer["good"] for answer in answers.values() if "no schema 'nope'" in answer["text"]] == [False]
