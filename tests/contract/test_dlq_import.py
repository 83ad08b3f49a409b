"""Dead letters out of files, into every kind of index: each once, and their raw records where they can be found again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from dlq.index.database import IndexDatabase
from dlq.index.filters import LetterFilter
from dlq.index.letters import index_row
from dlq.index.masking import Masker
from dlq.index.search import IndexReader
from dlq.index.writer import IndexWriter
from dlq.s3.archive import Archive, import_files, place_of
from dlq.s3.files import Kept, encode
from tests.providers.s3 import S3Server
from tests.unit.dlq.dead_letters import NOW_MS, letter, written
from tidegate.cli.main import app as tidegate
from tidegate.config.pipeline import Pipeline
from tidegate.config.queue import DeadLetterConfig
from tidegate.errors import ConfigError
from tidegate.record import TopicPartition

TP = TopicPartition("flights.dlq", 1)


@pytest.fixture(
    params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])],
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:///{tmp_path}/index.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres").url
    )


@pytest.fixture
def database(url: str) -> Iterator[IndexDatabase]:
    made = IndexDatabase(url, Pipeline(pipeline_id="flights").dead_letters)
    made.prepare()
    yield made
    made.close()


def kept(offset: int) -> Kept:
    key, value, headers = written(letter(offset, value=b'{"card": "4111", "n": %d}' % offset))
    return Kept(TP, offset, NOW_MS, key, value, headers)


def file(folder: Path, offsets: range, form: str = "parquet") -> Path:
    records = [kept(offset) for offset in offsets]
    path = folder / f"date=2023-11-14/{offsets.start} ä.{'jsonl' if form == 'json' else form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode([(one, one.envelope) for one in records], form))
    return path


def run(*arguments: Any) -> typer.testing.Result:
    return typer.testing.CliRunner().invoke(tidegate, ["dlq", *map(str, arguments)])


def rows(database: IndexDatabase) -> dict[str, Any]:
    found = {letter["id"]: letter for letter in IndexReader(database).every(LetterFilter())}
    return {id: {k: v for k, v in letter.items() if k not in ("letter", "detail")} for id, letter in found.items()}


def test_as_if_from_the_topic(database: IndexDatabase, tmp_path: Path) -> None:
    """A letter from a file is, but for its row's number and where else it is, what the agent makes of its record; letters
    that the agent has indexed are not counted again, whichever came first."""
    file(tmp_path, range(3))
    file(tmp_path, range(3, 6), "json")
    writer, masker = IndexWriter(database), Masker(())
    writer.write(TP, [index_row(kept(offset), TP, masker) for offset in (1, 4)], 4)
    place = place_of(str(tmp_path), DeadLetterConfig())
    assert import_files(place, writer, masker) == (2, 6, 4)
    assert import_files(place, writer, masker) == (2, 6, 0)
    writer.write(TP, [index_row(kept(offset), TP, masker) for offset in (5, 6)], 6)
    stats = IndexReader(database).stats()
    assert (stats["letters"], stats["open"]) == (7, 7)
    found, expected = rows(database), {kept(o).envelope.id: index_row(kept(o), TP, masker) for o in range(7)}
    assert {id: letter["dlq_offset"] for id, letter in found.items()} == {
        i: r["dlq_offset"] for i, r in expected.items()
    }
    assert {letter["repeats"] for letter in found.values()} == {0}
    assert IndexReader(database).group(found["flights-1-1"]["fingerprint"])["count"] == 7  # type: ignore[index]  # a missing group fails the test


def test_raw_records_out_of_files(database: IndexDatabase, tmp_path: Path) -> None:
    """The record of a letter is found in its file byte for byte, also when the agent had indexed it first; not any more
    when the file has gone or holds others."""
    path, masker = file(tmp_path, range(3)), Masker(())
    IndexWriter(database).write(TP, [index_row(kept(1), TP, masker)], 1)
    import_files(place_of(str(tmp_path), DeadLetterConfig()), IndexWriter(database), masker)
    numbers = {letter["id"]: letter["letter"] for letter in IndexReader(database).every(LetterFilter())}
    archive = Archive(Pipeline(pipeline_id="flights"), database)
    for offset in range(3):
        assert archive.find(numbers[f"flights-1-{offset}"]) == kept(offset)
    path.unlink()
    assert archive.find(numbers["flights-1-1"]) == kept(1)  # it was read a moment ago
    assert Archive(Pipeline(pipeline_id="flights"), database).find(numbers["flights-1-1"]) is None


@pytest.fixture
def pipeline(tmp_path: Path, url: str) -> Callable[..., Path]:
    def write(**config: Any) -> Path:
        path = tmp_path / "pipeline.json"
        queue = {"type": ["kafka", "s3"], "config": {"bucket": "letters", **config}}
        masking = [{"path": "card"}]
        document = {"pipelineId": "flights", "errorHandling": {"deadLetterQueue": queue},
                    "deadLetters": {"index": url, "masking": masking}}  # fmt: skip
        path.write_text(json.dumps(document))
        return path

    return write


@pytest.mark.slow
def test_from_a_bucket(pipeline: Callable[..., Path], s3: S3Server, tmp_path: Path) -> None:
    """`tidegate dlq import s3://…` makes the index if there is none, masks, tells of what is new, and is harmless again."""
    bucket = s3.bucket()
    for number, form in enumerate(("parquet", "json")):
        path = file(tmp_path / "files", range(number * 10, number * 10 + 10), form)
        s3.client.put_object(Bucket=bucket, Key=f"failed/x/{path.name}", Body=path.read_bytes())
    s3.client.put_object(Bucket=bucket, Key="failed/_SUCCESS", Body=b"")
    s3.client.put_object(Bucket=bucket, Key="other/x.parquet", Body=b"")
    settings = pipeline(**s3.config(bucket))
    first = run("import", settings, f"s3://{bucket}/failed", "--json")
    assert (first.exit_code, json.loads(first.stdout)) == (0, {"files": 2, "letters": 20, "new": 20}), first.output
    again = run("import", settings, f"s3://{bucket}/failed/")
    assert again.stdout.startswith("20 dead letters in 2 files, 0 new in the index of dead letters")
    found = json.loads(run("list", settings, "--json").stdout)
    assert found["count"] == 20
    assert found["letters"][0]["value"]["card"] == "***"


def test_what_cannot_be_imported(pipeline: Callable[..., Path], tmp_path: Path) -> None:
    """A place that is not there, one without files, and a file that is no file of dead letters are each named."""
    settings = pipeline()
    nothing = run("import", settings, tmp_path / "nowhere")
    assert (nothing.exit_code, "FROM: is not there" in nothing.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    assert "there is no file of dead letters" in run("import", settings, tmp_path / "empty").stderr
    file(tmp_path / "some", range(2))
    (tmp_path / "some" / "zzz.parquet").write_bytes(b"PAR1 or not")
    broken = run("import", settings, tmp_path / "some")
    assert broken.exit_code == 2
    assert "zzz.parquet" in broken.stderr
    assert json.loads(run("list", settings, "--json").stdout)["count"] == 2
    with pytest.raises(ConfigError, match="names no bucket"):
        place_of("s3:///x", DeadLetterConfig())
