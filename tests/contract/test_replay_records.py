"""What a replay sends, what it does not, and why: over a real broker."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from fastapi.testclient import TestClient

from dlq.console.app import create_app
from dlq.index.filters import LetterFilter
from dlq.index.history import HistoryFilter
from dlq.index.masking import Masker
from dlq.index.writer import IndexWriter
from dlq.replay import run
from dlq.replay.hand import by_hand
from dlq.replay.request import Request
from dlq.s3.archive import import_files, place_of
from dlq.s3.files import Kept, encode
from tests.contract.replay_scene import ReplayScene
from tests.harness import wait_until
from tests.openapi import check_operation, operations_of
from tests.providers.kafka import KafkaTopics
from tidegate import record as names
from tidegate.config.deadletters import Mask
from tidegate.config.queue import DeadLetterConfig
from tidegate.errors import ConfigError

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_what_retention_has_deleted(replays: ReplayScene) -> None:
    """Letters whose record is gone are said to be gone, and stay open; the others are sent."""
    replays.letters(range(30))
    admin = AdminClient({"bootstrap.servers": replays.kafka.bootstrap_servers})
    for done in admin.delete_records([TopicPartition(replays.dlq, 1, 4)]).values():
        done.result(30)
    found = replays.index.preview(Request(LetterFilter())).document()
    assert (found["chosen"], found["pass"], found["unsent"]) == (30, 26, 4)
    job = replays.carry_out(replays.job())
    assert replays.outcomes(job) == {"ok": 26, "gone": 4}
    (result, *_) = replays.index.jobs.results(job.id, outcome="gone")
    assert "retention has deleted it" in result["detail"]
    assert replays.open() == 4


@pytest.mark.parametrize(
    "make_replays", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
def test_too_many_replays(make_replays: Callable[..., ReplayScene]) -> None:
    """A letter that has been replayed `maxReplays` times is parked, and not sent; unparked, it may be sent again."""
    scene = make_replays(maxReplays=2)
    scene.letters(range(3))
    for outcome in ("failed_again", "loop"):
        job = scene.carry_out(scene.job(max_failures=1.0), refuses=lambda m: True)
        assert scene.outcomes(job) == {outcome: 3}
    job = scene.carry_out(scene.job())
    assert (job.state, scene.outcomes(job)) == ("done", {"parked": 3})
    assert len(scene.read(scene.source)) == 6
    parked = list(scene.index.reader.every(LetterFilter(state=("parked",))))
    assert [letter["replays"] for letter in parked] == [2, 2, 2]
    assert scene.open() == 0
    assert scene.index.reader.groups()[0]["state"] == "resolved"
    assert scene.index.lifecycle.unpark(LetterFilter(id=(parked[0]["id"],)), actor="ada") == 1
    assert scene.outcomes(scene.carry_out(scene.job())) == {"ok": 1}


@pytest.mark.parametrize(
    "make_replays", ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
def test_a_loop(make_replays: Callable[..., ReplayScene]) -> None:
    """A record that has failed after a replay, is sent once more as it was and fails in the same way is in a loop; mended, or
    failing in another way, it has only failed again. A loop counts as a failure where a job stops by itself."""
    scene = make_replays(maxReplays=9)
    scene.letters([7])

    def outcome(**request: Any) -> str:
        job = scene.carry_out(scene.job(max_failures=1.0, **request), refuses=lambda m: True)
        (result,) = scene.index.jobs.results(job.id)
        assert job.state == "done"
        assert [letter["id"] for letter in scene.index.reader.every(LetterFilter(state=("open",)))] == [result["again"]]
        return str(result["outcome"])

    assert outcome() == "failed_again"
    assert outcome() == "loop"
    assert outcome(assignments=("value.card = 'mended'",)) == "failed_again"
    assert outcome() == "loop"
    scene.rule = "another"
    assert outcome() == "failed_again"
    assert outcome() == "loop"
    stopped = scene.carry_out(scene.job(), refuses=lambda m: True)
    assert (stopped.state, scene.outcomes(stopped)) == ("stopped", {"loop": 1})
    (result,) = scene.index.jobs.results(stopped.id, outcome="loop")
    assert result["detail"] == f"it is {result['again']} now, and has failed as it did when it was replayed before"


def test_targets(make_replays: Callable[..., ReplayScene], kafka: KafkaTopics) -> None:
    """Letters go to topics of the allow-list only, whatever their headers say of where they came from."""
    scene, elsewhere, other = make_replays(), kafka.topic(), kafka.topic(partitions=2)
    scene.letters(range(4))
    scene.letters(range(10, 13), topic=elsewhere)
    with pytest.raises(ConfigError, match="may not be replayed to this topic"):
        scene.index.preview(Request(LetterFilter(), to=elsewhere))
    job = scene.carry_out(scene.job(canary=False))
    assert scene.outcomes(job) == {"ok": 4, "invalid": 3}
    (result, *_) = scene.index.jobs.results(job.id, outcome="invalid")
    assert f"'{elsewhere}'" in result["detail"]
    assert scene.read(elsewhere) == []
    scene.configure(replayTargets=[other])
    job = scene.carry_out(scene.job(to=other))
    assert scene.outcomes(job) == {"sent": 3}
    assert len(scene.read(other)) == 3
    assert scene.open() == 0


def test_edited_by_one_expression(make_replays: Callable[..., ReplayScene]) -> None:
    """Assignments mend what they name, from the raw bytes and not from what the index shows; the replay says what changed,
    and the original stays as it was."""
    scene = make_replays(masking=[{"path": "card"}])
    scene.letters([500], value=b'{"n": 500,  "card": "4111"}')
    scene.letters([7], value=b'{"n": 7, "card": "42"}')
    scene.letters([9], value=b"[1")
    request = Request(LetterFilter(), assignments=("value.n = CASE WHEN n > 100 THEN 100 ELSE n END",), canary=False)
    found = scene.index.preview(request).document()
    assert (found["pass"], found["unsent"], found["edited"]) == (2, 1, 1)
    assert found["diffs"] == [{"id": scene.id_of(500), "fields": {"value.n": {"before": "500", "after": "100"}}}]
    job = scene.carry_out(scene.index.jobs.create(request, actor="ada", owner="me"))
    assert scene.outcomes(job) == {"ok": 2, "invalid": 1}
    sent = {m.header("tidegate.replay.edited"): m for m in scene.read(scene.source)}
    assert sent["value"].value == b'{"n":100,"card":"4111"}'
    assert sent[None].value == b'{"n": 7, "card": "42"}'
    assert b'{"n": 500,  "card": "4111"}' in {m.value for m in scene.read(scene.dlq)}


def test_edited_by_hand(make_replays: Callable[..., ReplayScene]) -> None:
    """One letter, with a new value and key; whoever writes a mask back is told, and who lost the content, too."""
    scene = make_replays(masking=[{"path": "card"}])
    scene.letters([500], value=b'{"n": 500, "card": "4111"}')
    (letter,) = scene.index.reader.every(LetterFilter())
    raw = scene.index.reveal(letter, actor="ada", reason="to edit it")
    assert raw is not None
    masker = Masker((Mask(path="card"),))
    with pytest.raises(ConfigError, match=r"value\.card"):
        by_hand(letter["letter"], raw.envelope, b"k", b'{"n": 1, "card": "***"}', masker)
    hand = by_hand(letter["letter"], raw.envelope, b"new", b'{"n": 1, "card": "4111"}', masker)
    lost = scene.carry_out(scene.job(by_hand=True, canary=False))
    assert scene.outcomes(lost) == {"invalid": 1}
    job = scene.carry_out(scene.job(by_hand=True, canary=False), by_hand=hand)
    assert scene.outcomes(job) == {"ok": 1}
    (sent,) = scene.read(scene.source)
    assert (sent.key, sent.json, sent.header("tidegate.replay.edited")) == (
        b"new",
        {"n": 1, "card": "4111"},
        "key,value",
    )
    assert "4111" not in json.dumps(job.request.to_json())


def test_edited_through_the_console_s_api(make_replays: Callable[..., ReplayScene]) -> None:
    """What would fail again is not sent, and says why; what passes is sent at once, by who has asked, with what was masked as it
    was. Then an agent finds out what became of it."""
    scene = make_replays(masking=[{"path": "card"}])
    scene.letters([500], value=b'{"n": 500, "card": "4111"}')
    app, id = create_app(scene.index, "ada"), scene.id_of(500)
    client = TestClient(app, base_url="http://127.0.0.1:6062")
    editable = client.get("/api/letter/editable", params={"id": id}).json()
    assert json.loads(editable["value"]) == {"n": 500, "card": "***"}
    assert editable["schema"][0] == {"name": "n", "type": "bigint", "nullable": True}
    bad, good = ({"id": id, "value": json.dumps({"n": n, "card": "***"})} for n in (400, 7))
    refused = client.post("/api/letters/edit", json=bad)
    assert (refused.status_code, refused.json()["error"]) == (400, "it would fail again")
    assert "small" in refused.json()["value"]
    assert client.post("/api/letters/edit/preview", json=good).json()["pass"] == 1
    assert scene.read(scene.source) == []
    made = client.post("/api/letters/edit", json=good)
    assert made.status_code == 201, made.text
    (sent,) = scene.read(scene.source)
    assert sent.json == {"n": 7, "card": "4111"}
    assert {entry["action"] for entry in scene.index.reader.history(HistoryFilter(id=id))} == {"edit"}
    job = scene.index.jobs.claim("an agent")
    assert job is not None
    assert job.id == made.json()["job"]
    assert scene.outcomes(scene.carry_out(job)) == {"ok": 1}
    assert len(scene.read(scene.source)) == 1


def test_previews_keep_the_api_s_word(replays: ReplayScene) -> None:
    """Made-up previews, fit for the API's document or not, of records in a real topic, are answered as it says."""
    replays.letters([500], value=b'{"n": 500}')
    client = TestClient(create_app(replays.index, "ada"), base_url="http://127.0.0.1:6062")
    (operation,) = (one for one in operations_of(client) if one.path == "/api/preview")
    assert {200, 400} >= set(check_operation(client, operation, "positive"))
    assert set(check_operation(client, operation, "negative")) <= {400, 422}
    chosen = client.post("/api/preview", json={"filter": {}, "set": ["value.n = 7"]})
    assert (chosen.status_code, chosen.json()["pass"]) == (200, 1)


_ORIGIN = "tidegate.dlq.origin."
_FORGED = ((f"{_ORIGIN}topic", b"evil"), (f"{_ORIGIN}partition", b"-1"), (f"{_ORIGIN}offset", b"7"))
HOSTILE: list[dict[str, Any]] = [
    {"value": b"\xff\x00\x1b[2J", "key": b"\x00"},
    {"value": None, "key": None},
    {"value": b'{"n": 1' + b"0" * 400 + b"}"},
    {"value": b'{"n": 1}', "headers": (("tidegate.replay.of", b"forged"), ("tidegate.replay.job", b"x/1"))},
    {"value": b'{"n": 1}', "headers": _FORGED},
    {"value": b'{"n": 1}', "headers": tuple((f"h{i}", b"x" * 100) for i in range(300))},
    {"value": b"[" * 100_000},
    {"value": b'{"n": 1, "big": "' + b"x" * 800_000 + b'"}'},
]


def test_hostile_records(replays: ReplayScene) -> None:
    """Whatever was in the record, it is sent as it was, linked to its own letter; a preview of it says what is wrong."""
    for number, record in enumerate(HOSTILE):
        replays.letters([number], **record)
    assert replays.index.preview(Request(LetterFilter())).chosen == len(HOSTILE)
    job = replays.carry_out(replays.job(canary=False))
    outcomes = replays.outcomes(job)
    assert outcomes == {"ok": len(HOSTILE) - 1, "invalid": 1}  # the one whose origin is forged
    sent = {m.header("tidegate.replay.of"): m for m in replays.read(replays.source)}
    good = [number for number, record in enumerate(HOSTILE) if record.get("headers") is not _FORGED]
    assert set(sent) == {replays.id_of(number) for number in good}
    for number in good:
        message = sent[replays.id_of(number)]
        assert message.value == HOSTILE[number]["value"]
        assert [name for name, _ in message.headers].count("tidegate.replay.of") == 1


def test_a_record_that_the_topic_does_not_take(replays: ReplayScene, kafka: KafkaTopics) -> None:
    """It is said to be too large, and the others of its chunk are sent."""
    replays.letters([1], value=b"x" * 5000)
    replays.letters([2])
    small = kafka.topic(config={"max.message.bytes": "4000"})
    replays.configure(replayTargets=[{"topic": small}])
    job = replays.carry_out(replays.job(to=small, canary=False))
    assert replays.outcomes(job) == {"sent": 1, "invalid": 1}


def test_a_topic_that_refuses_a_record(replays: ReplayScene, kafka: KafkaTopics) -> None:
    """As a compacted one does that has no key. It is no outage, which would be waited for as long as the job lasts: the job stops
    with what the broker says."""
    replays.letters([1], key=None)
    compacted = kafka.topic(config={"cleanup.policy": "compact"})
    replays.configure(replayTargets=[{"topic": compacted}])
    run = replays.start(replays.job(to=compacted, canary=False))
    with pytest.raises(ConfigError, match=rf"(?s){compacted}.*validate record.*compacted topic"):
        run.turn()
    run.close()


def test_cut_values_are_not_sent(replays: ReplayScene) -> None:
    """A letter whose value did not fit into the dead-letter topic is not replayed: its record is not whole."""
    replays.letters([1], value=b"x" * 950_000)
    assert replays.outcomes(replays.carry_out(replays.job())) == {"invalid": 1}


def test_what_is_resolved_meanwhile_is_not_sent(replays: ReplayScene) -> None:
    replays.letters(range(4))
    job = replays.job(canary=False)
    replays.index.lifecycle.resolve(replays.index.reader.groups()[0]["fingerprint"], actor="bob")
    assert replays.outcomes(replays.carry_out(job)) == {"cancelled": 4}
    assert replays.read(replays.source) == []


def test_killed_among_letters_that_are_not_sent(replays: ReplayScene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was decided stays so, and whoever comes next goes on behind it, to the last letter."""
    monkeypatch.setattr(run, "_CHUNK", 2)
    replays.letters(range(6))
    job = replays.job(canary=False)
    replays.index.lifecycle.resolve(replays.index.reader.groups()[0]["fingerprint"], actor="bob")
    first = replays.start(job)
    monkeypatch.setattr(first._outcomes, "sent", None)  # as good as a SIGKILL there
    with pytest.raises(TypeError):
        first.turn()
    first.close()
    assert (replays.outcomes(job), replays.outcomes(replays.carry_out(job))) == ({"cancelled": 2}, {"cancelled": 6})


def test_only_open_ones() -> None:
    with pytest.raises(ConfigError, match="only open"):
        Request(LetterFilter(state=("resolved",)))


def kept_in_files(replays: ReplayScene, folder: Path) -> int:
    """How many letters of the topic the index knows to be in files as well."""
    kept = [
        Kept(names.TopicPartition(m.topic, m.partition), m.offset, m.timestamp, m.key, m.value, list(m.headers))
        for m in replays.read(replays.dlq)
    ]
    (folder / "x.parquet").write_bytes(encode([(one, one.envelope) for one in kept], "parquet"))
    place = place_of(str(folder), DeadLetterConfig())
    assert import_files(place, IndexWriter(replays.index.database), Masker(())) == (1, len(kept), 0)
    return len(kept)


def test_out_of_files_alone(replays: ReplayScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters whose topic is not in this cluster, or not any more, are shown, and replayed each once: how far the job is cannot
    be filed under that topic, and is found by whoever goes on."""
    monkeypatch.setattr(run, "_CHUNK", 2)
    replays.letters(range(6))
    assert kept_in_files(replays, tmp_path) == 6
    admin = AdminClient({"bootstrap.servers": replays.kafka.bootstrap_servers})
    for done in admin.delete_topics([replays.dlq]).values():
        done.result(30)
    wait_until(lambda: replays.dlq not in admin.list_topics(timeout=10).topics, 30, "the topic is gone")
    letter = replays.index.reader.letter(replays.id_of(4))
    assert letter is not None
    shown = replays.index.reveal(letter, actor="ada", reason="to compare")
    assert shown is not None
    assert shown.envelope.value == b'{"n": 4}'
    first = replays.start(replays.job(canary=False))
    monkeypatch.setattr(first._outcomes, "sent", None)  # as good as a SIGKILL there
    with pytest.raises(TypeError):
        first.turn()
    first.close()
    found = replays.carry_out(replays.taken_over(monkeypatch))
    assert (found.state, replays.outcomes(found)) == ("done", {"ok": 6})
    assert replays.sent() == Counter({replays.id_of(n): 1 for n in range(6)})


def test_out_of_files(replays: ReplayScene, tmp_path: Path) -> None:
    """Letters that retention has deleted are replayed from the files that S3 has of them, byte for byte, and shown."""
    replays.letters(range(6), headers=(("h", b"\xff"), ("n", None)))
    assert kept_in_files(replays, tmp_path) == 6
    ends = [TopicPartition(replays.dlq, partition, 2) for partition in range(3)]
    admin = AdminClient({"bootstrap.servers": replays.kafka.bootstrap_servers})
    for done in admin.delete_records(ends).values():
        done.result(30)
    assert replays.read(replays.dlq) == []
    letter = replays.index.reader.letter(replays.id_of(4))
    assert letter is not None
    shown = replays.index.reveal(letter, actor="ada", reason="to compare")
    assert shown is not None
    assert shown.envelope.value == b'{"n": 4}'
    found = replays.carry_out(replays.job(max_failures=1.0))
    assert (found.state, replays.outcomes(found)) == ("done", {"ok": 6})
    assert {(m.value, m.headers[-2:]) for m in replays.read(replays.source)} == {
        (b'{"n": %d}' % n, (("h", b"\xff"), ("n", b""))) for n in range(6)
    }
