"""The README says only what runs: every block of it is executed here."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.corpus.records import BAD as BAD_RECORDS
from tests.docs.blocks import blocks
from tests.harness import WorkerProcess, free_port, produce, running, wait_until

if TYPE_CHECKING:
    from tests.providers.kafka import KafkaTopics
    from tests.providers.postgres import Database

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCKS = {block.name: block for block in blocks(README)}
_TIMEOUT = 480  # s; the whole demo takes two minutes, and four on a machine that has other work
ORDERS = [
    {"order_id": "o-1", "ordered_at": "2026-01-01T12:00:05Z", "country": "NO", "amount": 12.5},
    {"order_id": "o-2", "ordered_at": "2026-01-01T12:00:40Z", "country": "NO", "amount": 7.5},
    {"order_id": "o-3", "ordered_at": "2026-01-01T12:00:41Z", "country": "SE", "amount": -1},
    {"order_id": "o-4", "ordered_at": "not a time", "country": "SE", "amount": 3},
]


def shell(text: str, directory: Path, environment: dict[str, str], *, ok: tuple[int, ...] = (0,)) -> str:
    """Run a block's commands; their output. `uv run` uses the environment that is there."""
    result = subprocess.run(
        ["bash", "-euc", text],
        cwd=directory,
        env={**os.environ, "UV_PROJECT": str(ROOT), "UV_NO_SYNC": "1", **environment},
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    assert result.returncode in ok, f"{text}\nexit {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture
def environment(kafka: KafkaTopics, postgres: Database) -> dict[str, str]:
    """The servers that the README's pipeline asks for."""
    return {"TIDEGATE_KAFKA": kafka.bootstrap_servers, "TIDEGATE_POSTGRES": postgres.url}


@pytest.fixture
def pipeline(kafka: KafkaTopics, tmp_path: Path) -> tuple[Path, str]:
    """The README's pipeline file over a topic of this test's own, with a free port; and the topic."""
    topic = kafka.topic(partitions=2)
    text = BLOCKS["pipeline"].text.replace("topics: [orders]", f"topics: [{topic}]")
    text = text.replace("pipelineId: orders ", f"pipelineId: {topic}-orders ")
    file = tmp_path / "pipeline.yaml"
    file.write_text(f"{text}telemetry: {{port: {free_port()}}}\nworker: {{stateDir: {tmp_path / 'state'}}}\n")
    return file, topic


def test_every_block_has_a_test() -> None:
    """A block that nobody runs cannot be added to the README."""
    tested = {"demo", "check", "pipeline", "worker", "questions", "batch", "tests"}
    assert {block.name for block in blocks(README)} == tested


@pytest.mark.slow
def test_the_example_can_be_written_and_checked(tmp_path: Path) -> None:
    """`init` writes a pipeline file that `check` finds valid."""
    assert "valid" in shell(BLOCKS["check"].text, tmp_path, {})


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.postgres
def test_the_pipeline_runs_and_answers_its_questions(
    pipeline: tuple[Path, str], environment: dict[str, str], kafka: KafkaTopics, tmp_path: Path
) -> None:
    """The README's pipeline, started by the README's command, counts orders and sets the broken ones apart."""
    file, topic = pipeline
    produce(kafka.bootstrap_servers, topic, [{"value": json.dumps(order).encode()} for order in ORDERS])
    worker = _Readme(BLOCKS["worker"].text, file, environment)
    with running(worker):
        worker.wait_ready(90)
        wait_until(lambda: worker.metric("tidegate_records_processed_total") == len(ORDERS), 60, "all orders processed")
        output = shell(BLOCKS["questions"].text, tmp_path, environment)
        assert worker.stop() == 0
    assert "RuleViolation" in output
    assert "InvalidTimestamp" in output


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.spark
@pytest.mark.usefixtures("spark_jars")
def test_the_pipeline_runs_on_spark(
    pipeline: tuple[Path, str], environment: dict[str, str], kafka: KafkaTopics, tmp_path: Path
) -> None:
    """The README's pipeline, run by the README's command, gives the same account, and its results are on Kafka too."""
    _, topic = pipeline
    produce(kafka.bootstrap_servers, topic, [{"value": json.dumps(order).encode()} for order in ORDERS])
    said = shell(BLOCKS["batch"].text, tmp_path, environment)
    assert "finished, 1 micro-batches" in said
    assert "read 4  accepted 2  failed 2  deadLettered 2  late 0" in said
    assert "results for sink kafka: " in said


@pytest.mark.slow
@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.timeout(600)
def test_the_demo_equals_the_truth(tmp_path: Path) -> None:
    """`tidegate demo` streams the whole year, mends what has no aircraft, and finds every window equal to plain SQL."""
    output = shell(BLOCKS["demo"].text, tmp_path, {})
    assert "produced 336,816 of 336,816" in output
    assert "2511 of 2512 would pass now" in output
    assert "values are equal: nothing lost, nothing counted twice" in output


def test_what_it_names_is_there() -> None:
    """Each test and each page; and no more bad files and records than the corpus has."""
    text = README.read_text(encoding="utf-8")
    named = {
        *re.findall(r"`((?:tests|worker|batch|tidegate)/[\w/.]+)`", text),
        *re.findall(r"\]\((?!http)([^)#]+)", text),
    }
    assert len(named) > 40
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    files, records = map(int, re.findall(r"`tests/corpus`: (\d+) bad files, (\d+) bad records", text)[0])
    assert files <= len(list((ROOT / "tests/corpus/settings/bad").glob("*.expected")))
    assert records <= len(BAD_RECORDS)


def test_the_test_command_is_what_ci_runs() -> None:
    """CI runs the README's own test command."""
    command = re.sub(r"^uv run ", "", BLOCKS["tests"].text.strip())
    assert re.search(rf"uv run (--\S+ )*{command}$", (ROOT / ".ci/run").read_text(), re.MULTILINE)


class _Readme(WorkerProcess):
    """A worker started by the README's own command line."""

    def __init__(self, command: str, file: Path, environment: dict[str, str]) -> None:
        self.command, self.file, self.environment = command, file, environment
        self.directory, self.name, self.pipeline = file.parent, "readme", {}
        self.log = file.parent / "readme.log"
        found = re.search(r"telemetry: \{port: (\d+)\}", file.read_text())
        assert found is not None
        self.port = int(found[1])

    def start(self) -> WorkerProcess:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", f"exec env {self.command}"],
                cwd=self.directory,
                env={**os.environ, "UV_PROJECT": str(ROOT), "UV_NO_SYNC": "1", **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self
