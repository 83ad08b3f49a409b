"""The local state of one partition: batches with their changelog offset, and directories that cannot be trusted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.clock import ManualClock
from worker.statedb import FORMAT, PartitionDB

KEYS = st.binary(min_size=1, max_size=4).filter(lambda key: key[0] != 0xFF)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flights-0"


def test_get_keeps_the_order_of_the_keys(path: Path) -> None:
    """Values come in the order of the keys asked for, with None where there is none."""
    db = PartitionDB(path)
    db.write([(b"a", b"1"), (b"b", b"2")], [], 7)
    assert db.get([b"b", b"x", b"a"]) == [b"2", None, b"1"]
    assert db.get([]) == []
    db.close()


def test_offset_belongs_to_the_rows(path: Path) -> None:
    """A database that was closed comes back with its rows and with the changelog offset they stand for."""
    db = PartitionDB(path)
    assert db.changelog_offset is None
    db.write([(b"a", b"1")], [], 7)
    db.apply([b"a", b"b"], [None, b"2"], 9)
    db.close()
    again = PartitionDB(path)
    assert (again.changelog_offset, again.get([b"a", b"b"])) == (9, [None, b"2"])
    again.close()


def test_scan_is_a_snapshot(path: Path) -> None:
    """A scan gives the rows of its range in key order, as they were when it began, and never the bookkeeping."""
    db = PartitionDB(path)
    db.write([(bytes([i]), b"v") for i in range(10)], [], 1)
    scan = db.scan(b"\x02", b"\xff\xff")
    assert next(scan) == (b"\x02", b"v")
    db.write([], [b"\x03"], 2)
    assert [key[0] for key, _ in scan] == list(range(3, 10))
    assert [key[0] for key, _ in db.scan(b"\x02", b"\x05")] == [2, 4]
    db.close()


def test_range_is_deleted(path: Path) -> None:
    """Deleting a range leaves its end and everything outside."""
    db = PartitionDB(path)
    db.write([(bytes([i]), b"v") for i in range(10)], [], 1)
    db.delete_range(b"\x02", b"\x08", 2)
    assert [key[0] for key, _ in db.scan(b"", b"\xff")] == [0, 1, 8, 9]
    assert db.changelog_offset == 2
    db.close()


def test_open_scan_does_not_keep_the_database(path: Path) -> None:
    """Closing ends scans that are still open, so that the next owner can open the directory."""
    db = PartitionDB(path)
    db.write([(b"a", b"1"), (b"b", b"2")], [], 1)
    scan = db.scan(b"", b"\xff")
    next(scan)
    db.close()
    again = PartitionDB(path)
    assert again.path == path
    assert again.changelog_offset == 1
    again.close()


def test_directory_in_use_is_left_alone(path: Path) -> None:
    """A directory that another owner has open is neither read nor deleted: the newcomer takes one of its own."""
    first = PartitionDB(path)
    first.write([(b"a", b"1")], [], 1)
    second = PartitionDB(path)
    assert second.path != path
    assert second.changelog_offset is None
    second.write([(b"a", b"2")], [], 5)
    assert first.get([b"a"]) == [b"1"]
    first.close()
    second.close()


def test_what_a_newcomer_took_does_not_stay(path: Path) -> None:
    """When the directory is free again its next owner takes it, and deletes those that others took meanwhile and have left."""
    first, second, third = PartitionDB(path), PartitionDB(path), PartitionDB(path)
    taken = [second.path, third.path]
    first.close()
    third.close()
    PartitionDB(path).close()
    assert [one.exists() for one in taken] == [True, True], "the second is in use, and hides the third"
    second.close()
    again = PartitionDB(path)
    assert again.path == path
    assert [one.exists() for one in taken] == [False, False]
    again.close()


@pytest.mark.parametrize("damage", ["format", "no format", "manifest", "table"])
def test_damaged_directory_is_wiped(path: Path, damage: str) -> None:
    """A directory of another format, or one that cannot be read, is emptied for a restore; it is never a crash loop."""
    db = PartitionDB(path)
    db.write([(b"a", b"1")], [], 7)
    db.close()
    match damage:
        case "format":
            (path / "FORMAT").write_text(f"{FORMAT + 1}\n")
        case "no format":
            (path / "FORMAT").unlink()
        case "manifest":
            (path / "CURRENT").write_text("MANIFEST-999999\n")
        case "table":
            for table in path.glob("*.sst"):
                table.unlink()
    again = PartitionDB(path)
    assert again.changelog_offset is None
    assert list(again.scan(b"", b"\xff")) == []
    again.close()


@pytest.mark.parametrize(
    ("first", "then", "kept"), [("A", "A", True), ("A", "B", False), ("A", "", True), ("", "B", True)]
)
def test_state_of_another_changelog_is_wiped(path: Path, first: str, then: str, kept: bool) -> None:
    """A changelog with another id was deleted and made anew, however long it is: its offsets are not those of the state.
    An id that is not known says nothing."""
    db = PartitionDB(path, changelog_id=first)
    db.write([(b"a", b"1")], [], 7)
    db.close()
    again = PartitionDB(path, changelog_id=then)
    assert again.get([b"a"]) == [b"1" if kept else None]
    again.close()


def test_state_keeps_the_id_of_its_changelog(path: Path) -> None:
    """An opening that does not know the id forgets nothing, and state of before there were ids takes the first one."""
    for changelog_id in ("", "A", ""):
        db = PartitionDB(path, changelog_id=changelog_id)
        db.write([(b"a", b"1")], [], 7)
        db.close()
    again = PartitionDB(path, changelog_id="B")
    assert again.changelog_offset is None
    again.close()


def test_old_state_is_wiped(path: Path) -> None:
    """State that was closed more than twelve hours ago may lack deletions that compaction has removed: it is wiped."""
    clock = ManualClock()
    db = PartitionDB(path, clock=clock)
    db.write([(b"a", b"1")], [], 7)
    clock.advance(13 * 3600)
    db.close()  # current as of now
    PartitionDB(path, clock=clock).close()
    clock.advance(11 * 3600)
    db = PartitionDB(path, clock=clock)
    assert db.changelog_offset == 7
    db.close()
    clock.advance(13 * 3600)
    db = PartitionDB(path, clock=clock)
    assert db.changelog_offset is None
    db.close()


@pytest.mark.slow
def test_kill_leaves_an_earlier_write(path: Path) -> None:
    """After SIGKILL the rows are exactly those of the write whose offset the database gives, whatever was flushed."""
    writer = textwrap.dedent(
        """
        import sys
        from worker.statedb import PartitionDB
        db = PartitionDB(sys.argv[1])
        for offset in range(10**9):
            row = (b"%03d" % (offset % 500), offset.to_bytes(8, "big") + bytes(8000))
            db.write([row, (b"last", b"%d" % offset)], [], offset)
            if offset == 15_000:
                print("ready", flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", writer, str(path)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, signal.SIGKILL)
    db = PartitionDB(path)
    upto = db.changelog_offset
    assert upto is not None
    assert upto >= 500
    assert db.get([b"last"]) == [b"%d" % upto]
    rows = {int(key): int.from_bytes(value[:8], "big") for key, value in db.scan(b"0", b"a")}
    assert rows == {offset % 500: offset for offset in range(upto - 499, upto + 1)}
    db.close()


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=4)), max_size=8), max_size=8))
def test_apply_equals_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[list[tuple[bytes, bytes | None]]]
) -> None:
    """Applying changelog records in any chunks gives what a dictionary would hold."""
    db, model = PartitionDB(tmp_path_factory.mktemp("state") / "p"), dict[bytes, bytes]()
    for number, chunk in enumerate(chunks):
        db.apply([key for key, _ in chunk], [value for _, value in chunk], number)
        for key, value in chunk:
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
    assert list(db.scan(b"", b"\xff")) == sorted(model.items())
    db.close()
