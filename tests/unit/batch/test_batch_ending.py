"""A command on Spark that is told to stop ends in a time that is known."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from batch.ending import Stop, cancelling
from tests.harness import ROOT

PATIENCE, MOMENT = 30.0, 0.6  # seconds; the latter for what must not happen meanwhile

pytestmark = pytest.mark.slow


def test_what_is_in_hand_has_its_time() -> None:
    """Then it is cancelled, and whatever was on its way too."""
    stop, calls = Stop(), threading.Semaphore(0)
    with cancelling(stop, MOMENT, calls.release):
        stop.set()
        assert not calls.acquire(timeout=MOMENT / 2)
        assert calls.acquire(timeout=PATIENCE)
        assert calls.acquire(timeout=PATIENCE)


def listening() -> Stop:
    stop = Stop()
    threading.Thread(target=stop.listen, daemon=True).start()
    return stop


def test_a_second_signal_ends_that_time() -> None:
    """Whoever is asked once more raises: nothing else would come of it, as where there is nothing to cancel."""
    stop, called = listening(), threading.Event()
    with cancelling(stop, 3600, called.set):
        assert not called.wait(MOMENT), "nobody has asked"
        stop.ask()
        assert not called.wait(MOMENT)
        stop.ask()
        assert called.wait(PATIENCE)
        with pytest.raises(KeyboardInterrupt):
            stop.ask()
    started = listening()
    started.ask()
    assert started.wait(PATIENCE)
    with pytest.raises(KeyboardInterrupt):
        started.ask()


def test_a_signal_that_finds_the_stop_in_use() -> None:
    """Its handler runs on top of what it has interrupted, which may be about to wait for this very stop: it is heard all the
    same, and holds nothing up."""
    stop = listening()

    def interrupted() -> None:
        with stop._cond:  # type: ignore[attr-defined]  # as threading.Event.wait and .set do
            stop.ask()

    handler = threading.Thread(target=interrupted, daemon=True)
    handler.start()
    handler.join(PATIENCE / 10)
    assert not handler.is_alive()
    assert stop.wait(PATIENCE)


@pytest.mark.parametrize("read", [True, False])
def test_a_command_that_hangs_is_ended(read: bool) -> None:
    """In the last resort by itself, with the exit code of a worker's, and it says so; also where nobody reads what it says."""
    full = "import os\nos.set_blocking(2, False)\nwhile True:\n    try: os.write(2, b'x' * 65536)\n    except OSError: break\n"
    code = (
        f"{'' if read else full + 'os.set_blocking(2, True)'}\n"
        "import threading\nfrom batch import ending\nending.GRACE = 0.2\n"
        "with ending.stopping(0.2):\n    print('begun', flush=True)\n    threading.Event().wait(3600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "told to stop and hangs" in errors) == (70, read)
