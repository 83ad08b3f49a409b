"""The Faust worker: `faust -A worker.app worker`. worker/commit.py answers "can this lose a record?"."""

from worker.memory import leave_pandas_out

leave_pandas_out()  # before anything of the package, or what it imports, makes an array
