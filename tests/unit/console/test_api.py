"""The JSON API: the same acts as the pages and the shell, and a document that says what it does."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from dlq.cli import app as dlq_cli
from tests.console_scene import NOW, TOKENS, Scene, dead, scene

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1")


def post(console: Scene, path: str, **body: Any) -> Any:
    return console.client().post(path, json=body)


def test_everything_that_the_pages_do_is_in_the_document(console: Scene) -> None:
    """Each act and each list has an operation with a description, what it answers, and how it refuses."""
    document = console.client().get("/api/openapi.json").json()
    acts = {path for path, operations in document["paths"].items() if "post" in operations}
    assert acts == {
        "/api/groups/acknowledge", "/api/groups/resolve", "/api/letters/park", "/api/letters/unpark",
        "/api/letters/reveal", "/api/letters/edit", "/api/letters/edit/preview",
        "/api/preview", "/api/jobs", "/api/jobs/{job}/pause", "/api/jobs/{job}/resume",
        "/api/jobs/{job}/cancel",
    }  # fmt: skip
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["description"]
            assert {"400", "401", "403", "422", "503"} <= set(operation["responses"])


def test_a_page_is_what_the_shell_prints(console: Scene, tmp_path: Path) -> None:
    """`dlq list --json`, `dlq groups --json` and the API answer with the same documents."""
    from typer.testing import CliRunner

    file = tmp_path / "pipeline.json"
    url = f"sqlite:///{tmp_path / 'index.sqlite'}"
    file.write_text(json.dumps({"pipelineId": "flights", "deadLetters": {"index": url}}))
    shell = json.loads(CliRunner().invoke(dlq_cli, ["list", str(file), "carrier", "--json"]).stdout)
    assert console.client().get("/api/letters?text=carrier").json() == shell
    groups = json.loads(CliRunner().invoke(dlq_cli, ["groups", str(file), "--json"]).stdout)
    answered = console.client().get("/api/groups").json()["groups"]
    assert [{name: value for name, value in group.items() if name != "rates"} for group in answered] == groups


def test_the_life_of_a_group(console: Scene) -> None:
    """Acknowledged, parked, opened again, resolved; the history has each with who did it and the note."""
    group = console.group
    assert post(console, "/api/groups/acknowledge", group=group, note="mine").json()["state"] == "acknowledged"
    assert post(console, "/api/letters/park", filter={"group": [group]}, note="tests").json() == {"letters": 38}
    assert post(console, "/api/letters/unpark", filter={"group": [group]}).json() == {"letters": 38}
    assert post(console, "/api/groups/resolve", group=group).json() == {"letters": 38}
    entries = console.client().get(f"/api/audit?group={group}").json()["entries"]
    assert [(entry["actor"], entry["action"], entry["note"]) for entry in entries] == [
        ("ada", "resolve", ""), ("ada", "unparked letters", ""), ("ada", "parked letters", "tests"),
        ("ada", "acknowledge", "mine"),
    ]  # fmt: skip


def test_a_replay_job(console: Scene) -> None:
    """Made from a filter, looked at with what became of each letter, paused, resumed and cancelled; not when it is over."""
    made = post(console, "/api/jobs", filter={"stage": ["handle"]}, rate=10, canary=False)
    assert made.status_code == 201
    job = made.json()["job"]
    assert made.json()["request"]["filter"] == [["stage", "handle"]]
    page = console.client().get(f"/api/jobs/{job}/letters?limit=5").json()
    assert ([row["position"] for row in page["results"]], page["next"]) == ([1, 2, 3, 4, 5], 5)
    for act, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        assert post(console, f"/api/jobs/{job}/{act}").json()["state"] == state
    again = post(console, f"/api/jobs/{job}/pause")
    assert again.status_code == 400
    assert again.json()["error"] == "the job is cancelled"
    assert console.client().get(f"/api/jobs/{job}").json()["outcomes"] == {"cancelled": 7}


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("/api/jobs", {"filter": {"grupo": ["x"]}}, 422, "filter.grupo"),
        ("/api/jobs", {}, 422, "filter"),
        ("/api/jobs", {"filter": {}, "set": ["value.x = random()"]}, 400, "set value.x"),
        ("/api/jobs", {"filter": {}, "to": "elsewhere"}, 400, "to"),
        ("/api/jobs", {"filter": {"state": ["parked"]}}, 400, "state"),
        ("/api/jobs", {"filter": {"state": ["lost"]}}, 422, "filter.state.0.literal['open','resolved','parked','replaced']"),
        ("/api/letters/park", {"note": "all?"}, 422, "filter"),
        ("/api/groups/resolve", {"group": "nope"}, 404, "group"),
        ("/api/letters/reveal", {"id": "flights-2-59"}, 422, "reason"),
        ("/api/letters/reveal", {"id": "flights-2-59", "reason": "   "}, 422, "reason"),
        ("/api/jobs/ffff/pause", {}, 404, "job"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_field(console: Scene, path: str, body: Any, status: int, field: str) -> None:
    """What is wrong, where; and nothing is done."""
    answer = console.client().post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["field"] == field
    assert console.index.reader.history() == []


def test_who_did_it_is_the_token_s_name(guarded: Scene) -> None:
    """Not what the request says of itself."""
    guarded.client(TOKENS["operator"]).post("/api/groups/acknowledge", json={"group": guarded.group})
    assert guarded.index.reader.history()[0]["actor"] == "operator"


@pytest.mark.parametrize("list_", ["letters", "groups", "jobs", "audit"])
def test_every_list_is_exported_as_it_is_filtered(console: Scene, list_: str) -> None:
    """All of it, past the first page, as a file; what was exported by whom is in the audit log."""
    for n in range(3):
        post(console, "/api/jobs", filter={"id": [f"flights-{n}-{n}"]})
    query = {"letters": "stage=decode", "groups": "stage=decode", "jobs": "state=running", "audit": "action=replay"}[
        list_
    ]
    number = {"letters": 45, "groups": 2, "jobs": 3, "audit": 3}[list_]
    for form in ("csv", "json"):
        answer = console.client().get(f"/api/export/{list_}?{query}&format={form}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-disposition"].startswith('attachment; filename="flights-')
        rows = [*csv.DictReader(io.StringIO(answer.text))] if form == "csv" else answer.text.splitlines()
        assert len(rows) == number
        entry = console.index.reader.history()[0]
        assert (entry["action"], entry["note"]) == ("export", list_)
        assert entry["detail"] == {"filter": [query.split("=")], "format": form}


def test_what_became_of_a_job_s_letters_is_exported(console: Scene) -> None:
    """With outcome and detail."""
    job = post(console, "/api/jobs", filter={"stage": ["handle"]}).json()["job"]
    post(console, f"/api/jobs/{job}/cancel")
    rows = [*csv.DictReader(io.StringIO(console.client().get(f"/api/export/jobs/{job}?outcome=cancelled").text))]
    assert len(rows) == 7
    assert {row["detail"] for row in rows} == {"the job was cancelled"}
    assert console.client().get("/api/export/jobs/ffff").status_code == 404


def test_an_export_is_written_as_it_is_read(tmp_path: Path) -> None:
    """More than one piece: one heading, no row twice."""
    with scene(tmp_path) as console:
        console.prepare().write(*(dead(n, at=NOW - n) for n in range(1_203)))
        rows = [*csv.DictReader(io.StringIO(console.client().get("/api/export/letters").text))]
        assert len({row["id"] for row in rows}) == len(rows) == 1_203


def test_no_spreadsheet_runs_what_it_is_given(tmp_path: Path) -> None:
    """In no list does a cell of text begin as a formula."""
    with scene(tmp_path) as console:
        console.prepare().write(
            *(dead(n, at=NOW, message=text, error=text, key=text.encode(), value=json.dumps(text).encode(), topic=text or "t")
              for n, text in enumerate(FORMULAS))
        )  # fmt: skip
        for group in console.index.reader.groups():
            console.index.lifecycle.acknowledge(group["fingerprint"], actor="=ada", note="=note")
        job = post(console, "/api/jobs", filter={}).json()["job"]
        for path in ("letters", "groups?state=all", "jobs", f"jobs/{job}", "audit"):
            text = console.client().get(f"/api/export/{path}").text
            for row in [*csv.reader(io.StringIO(text))][1:]:
                for cell in row:
                    numeric = cell.lstrip("-").isdigit()
                    assert numeric or not cell.strip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "＝")), (
                        path,
                        cell,
                    )
