"""The Faust worker: `faust -A worker.app worker`. worker/commit.py answers "can this lose a record?"."""
