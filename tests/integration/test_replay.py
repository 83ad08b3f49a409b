"""Replay over a real broker, a real database, a real worker and a real agent: from failure to a closed group."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dlq.cli.options import actor
from tests.harness import running
from tests.providers.kafka import KafkaTopics
from tests.providers.postgres import Database
from tests.replaying import Replaying, orders
from tidegate.ledger import Ledger

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]
MENDED = [{"name": "small", "type": "range", "column": "amount", "max": 1000}]


def test_from_failure_to_a_closed_group(kafka: KafkaTopics, postgres: Database, tmp_path: Path) -> None:
    """Records fail a rule; the rule is mended; the preview says so; the replay is accepted, byte for byte, and closes the
    group; what still fails is a new letter that is linked to the old one."""
    scene = Replaying(kafka, postgres.url, tmp_path)
    scene.feed(orders(range(430), amount=lambda n: 500 if n % 2 else 5000 if n % 100 == 0 else 1))
    with running(scene.worker, scene.agent):
        scene.wait_indexed(220)
        (group,) = scene.json("groups")
        assert scene.json("preview", "--group", group["group"])["fail"] == 220
        assert scene.worker.stop() == 0
        scene.mend(rules=MENDED)
        scene.worker.start()
        found = scene.json("preview", "--group", group["group"])
        assert (found["chosen"], found["pass"], found["fail"]) == (220, 215, 5)
        assert [(why["name"], why["count"], len(why["examples"])) for why in found["reasons"]] == [("small", 5, 3)]
        assert found["targets"] == {scene.source: 220}
        result = scene.json("replay", "--group", group["group"], "--max-failures", "1", "--yes", code=1)
        assert (result["state"], result["outcomes"]) == ("done", {"ok": 215, "failed_again": 5})
        scene.wait_indexed(225)
        assert scene.stats("open") == 5
        assert scene.ledger() == Ledger(read=650, accepted=425, dead_lettered=225, replayed=220)
        after = scene.json("groups", group["group"])
        assert (after["state"], after["open"], after["reopened"]) == ("open", 5, 0)
        letters = scene.read(scene.dlq)
        originals = {m.header("tidegate.dlq.id"): m for m in letters}
        replays = [m for m in scene.read(scene.source) if m.header("tidegate.replay.of")]
        assert len(replays) == 220
        for replay in replays:
            original = originals[replay.header("tidegate.replay.of")]
            assert (replay.key, replay.value, replay.partition) == (original.key, original.value, original.partition)
            assert replay.header("tidegate.dlq.replays") == "1"
            assert replay.header("tidegate.dlq.origin.offset") == original.header("tidegate.dlq.origin.offset")
            assert replay.header("tidegate.dlq.error.message") is None
            assert not [name for name, _ in replay.headers if name.startswith("__connect")]
        (again, *_) = scene.json("jobs", "show", result["job"], "--outcome", "failed_again")["results"]
        newer = scene.json("list", "--state", "open")["letters"]
        assert again["again"] in [x["id"] for x in newer]
        assert {x["replays"] for x in newer} == {1}
        assert scene.json("list", "--state", "replaced")["count"] == 5


def test_the_commands_ask_and_say(kafka: KafkaTopics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a SQLite index and in the command's own process: the preview in words, the question, an edit by hand, parking, jobs,
    and how far a replay is; what retention, a mask or a script forbids is an error that says so."""
    scene = Replaying(
        kafka, f"sqlite:///{tmp_path / 'index.sqlite'}", tmp_path, dead_letters={"masking": [{"path": "card"}]}
    )
    scene.feed(orders(range(4), amount=lambda n: 500 + n))
    scene.feed([{"key": b"k", "value": b'{"id": 9, "amount": 900, "card": "4111"}', "partition": 0}])
    with running(scene.worker, scene.agent):
        scene.wait_indexed(5)
        assert scene.agent.stop() == 0
        assert "no dead letter" not in scene.run("preview").output
        printed = scene.run("preview", "--set", "value.amount = least(amount, 501 - 401)").output
        assert "5 of 5 would pass now" in printed
        assert "+ value.amount: 100" in printed
        assert "4111" not in printed
        assert "0 of 5 would pass now" in scene.run("replay", "--here", input="n\n", code=1).output
        assert scene.json("jobs", "list") == []
        assert "--yes" in scene.run("replay", "--json", code=2).stderr

        (letter,) = scene.json("list", "--field", "id=9")["letters"]
        assert "4111" not in scene.run("show", letter["id"]).output
        assert "4111" in scene.run("show", letter["id"], "--reveal", "--reason", "to compare").output
        revealed = scene.json("show", letter["id"], "--reveal", "--reason", "again")
        assert (revealed["value"]["card"], json.loads(revealed["raw"]["value"])["card"]) == ("***", "4111")
        entries = scene.json("audit", "--action", "reveal", "--id", letter["id"])
        assert [(entry["actor"], entry["note"]) for entry in entries] == [(actor(), "again"), (actor(), "to compare")]
        masked = '{"id": 9, "amount": 1, "card": "***"}'
        assert "value.card" in scene.run("edit", letter["id"], "--value", masked, code=2).stderr
        edited = scene.json("edit", letter["id"], "--value", '{"id": 9, "amount": 1, "card": "4112"}', "--yes")
        assert edited["outcomes"] == {"ok": 1}
        assert "4112" not in json.dumps(scene.json("jobs", "show", edited["job"]))

        (first,) = scene.json("list", "--field", "id=0")["letters"]
        assert "1 dead letters parked" in scene.run("park", "--id", first["id"], "--yes").output
        command = ("replay", "--set", "value.amount = 1", "--here", "--yes")
        with monkeypatch.context() as terminal:
            terminal.setenv("FORCE_COLOR", "1")
            terminal.setenv("COLUMNS", "100")
            done = scene.run(*command)
        assert "3 ok" in done.stdout
        assert re.search(r"replay .*━.*3/3", done.stderr)  # the bar, as a terminal gets it
        assert scene.stats("open") == 0
        assert "no dead letter is chosen" in scene.run(*command, code=2).stderr
        assert "1 dead letters are open again" in scene.run("park", "--undo", "--yes").output
        waiting = scene.json("replay", "--no-wait", "--yes")
        assert waiting["state"] == "running"
        assert "paused" in scene.run("jobs", "pause", waiting["job"]).output
        assert "running" in scene.run("jobs", "resume", waiting["job"]).output
        assert "cancelled" in scene.run("jobs", "cancel", waiting["job"], "--yes").output
        listed = {job["job"]: job["state"] for job in scene.json("jobs", "list")}
        assert listed[waiting["job"]] == "cancelled"
        assert "there is no such job" in scene.run("jobs", "show", "nothing", code=2).stderr
    amounts = sorted(m.json["amount"] for m in scene.read(scene.source) if m.header("tidegate.replay.edited"))
    assert amounts == [1, 1, 1, 1]
