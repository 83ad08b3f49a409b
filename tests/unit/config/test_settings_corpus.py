"""The corpus of pipeline files: every bad one gets its clear error, every good one loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.config.loading import load_pipeline
from tidegate.config.pipeline import Pipeline
from tidegate.errors import ConfigError, ConfigErrors

SETTINGS = Path(__file__).parents[2] / "corpus" / "settings"
SECRET = "geheim12"
ENVIRON = {"GIVEN": SECRET}

BAD = sorted(path for path in (SETTINGS / "bad").iterdir() if path.suffix != ".expected")
GOOD = sorted((SETTINGS / "good").iterdir())


def loaded(name: str) -> Pipeline:
    return load_pipeline(SETTINGS / "good" / name, ENVIRON)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.name)
def test_bad_file_gets_its_error(path: Path) -> None:
    """The error has the text that stands in `.expected` beside the file, names the file, says what was expected, and shows no
    secret."""
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path, ENVIRON)
    text = str(caught.value)
    for fragment in path.with_name(f"{path.name}.expected").read_text(encoding="utf-8").splitlines():
        if fragment.startswith("!"):
            assert fragment[1:] not in text
        else:
            assert fragment in text, text
    assert path.name in text
    errors = caught.value.errors if isinstance(caught.value, ConfigErrors) else (caught.value,)
    assert all(error.expected for error in errors), text
    assert SECRET not in text
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.name)
def test_bad_file_carries_no_secret_with_its_error(path: Path) -> None:
    """Neither the error's cause nor its context is a validation error: a traceback would print its inputs."""
    with pytest.raises(ConfigError) as caught:
        load_pipeline(path, ENVIRON)
    assert type(caught.value.__context__).__name__ != "ValidationError"
    assert caught.value.__cause__ is None


def test_corpus_is_large_enough() -> None:
    """At least 60 bad files."""
    assert len(BAD) >= 60


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_good_file_loads(path: Path) -> None:
    """A good file loads, and its repr shows no secret."""
    pipeline = load_pipeline(path, ENVIRON)
    if path.name != "references.yaml":  # there a user name is taken from the same variable, and a user name is shown
        assert SECRET not in repr(pipeline)


def test_seed_works_as_it_stands() -> None:
    """The user's own errorHandling block loads unchanged; its broker is the pipeline's."""
    pipeline = loaded("seed.json")
    retry, breaker = pipeline.error_handling.retry, pipeline.error_handling.circuit_breaker
    assert (retry.strategy, retry.max_attempts, retry.initial_delay_ms) == ("exponential-backoff", 5, 1000)
    assert (breaker.failure_threshold, breaker.reset_timeout_seconds, breaker.half_open_max_attempts) == (5, 60, 1)
    assert pipeline.error_handling.dead_letter_queue.config.topic == "dlq-failed-records"
    assert pipeline.kafka.bootstrap_servers == "localhost:9092"
    assert pipeline.missing_to_run == ("source", "schema")


def test_older_retry_form_means_fixed_delay() -> None:
    """`delaySeconds` without a strategy is the fixed delay of old."""
    retry = loaded("fixed-delay.json").error_handling.retry
    assert (retry.strategy, retry.delay_seconds, retry.max_attempts) == ("fixed-delay", 10, 3)


def test_snake_case_is_accepted_everywhere() -> None:
    """Every name may be written in snake_case."""
    pipeline = loaded("snake-case.yaml")
    assert pipeline.kafka.session_timeout == 12_000
    assert pipeline.event_time is not None
    assert pipeline.event_time.allowed_lateness == 300_000
    assert pipeline.error_handling.dead_letter_queue.config.bootstrap_servers == "localhost:9092"


def test_yaml_does_not_guess() -> None:
    """`NO` and `on` are text, a date is text, `true` is a boolean and `1` a number."""
    allowed, dates = loaded("country-codes.yaml").rules
    assert getattr(allowed, "values", None) == ("NO", "SE", "on", "off", 1, 1.5, True)
    assert getattr(dates, "min", None) == "2013-01-01"
    assert dates.on_failure == "deadLetter"


def test_anchors_and_merges_work() -> None:
    """A rule can be written once and varied; what it overrides is no repetition."""
    first, second = loaded("anchors.yaml").rules
    assert (getattr(first, "column", None), getattr(second, "column", None)) == ("a", "b")
    assert getattr(second, "min", None) == 0


def test_references_are_replaced() -> None:
    """`${ENV}` and its default are taken, also for numbers and booleans, `$${` is a plain `${`, and a secret stays one."""
    pipeline = loaded("references.yaml")
    retry = pipeline.error_handling.retry
    assert (retry.jitter, retry.backoff_multiplier) == (False, 1.5)
    assert pipeline.pipeline_id == "from-default"
    assert pipeline.worker.max_batch_records == 100
    assert pipeline.worker.state_dir == "${GIVEN}"
    assert pipeline.kafka.sasl is not None
    assert pipeline.kafka.sasl.password.get_secret_value() == SECRET
    assert SECRET not in repr(pipeline.kafka.sasl.password)
    assert SECRET not in repr(pipeline.sinks)


def test_secret_file_is_read_without_its_newline(tmp_path: Path) -> None:
    """`${file:…}` is the file's text; a relative path starts where the pipeline file is."""
    (tmp_path / "password").write_text("geheim\n", encoding="utf-8")
    path = tmp_path / "pipeline.yaml"
    path.write_text(
        "pipelineId: a\nkafka: {tls: {}, sasl: {username: u, password: '${file:password}'}}\n", encoding="utf-8"
    )
    sasl = load_pipeline(path, {}).kafka.sasl
    assert sasl is not None
    assert sasl.password.get_secret_value() == "geheim"


def test_missing_file_is_named(tmp_path: Path) -> None:
    """A file that is not there is named, with the command that writes one."""
    with pytest.raises(ConfigError, match="there is no such file") as caught:
        load_pipeline(tmp_path / "nothing.yaml")
    assert "tidegate init" in str(caught.value)
