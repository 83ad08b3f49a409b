"""`tidegate batch backfill`: results brought up to what the log says.

late.py        `--late`: the windows that miss late records get them
gather.py      where late records are found: the late topic, the dead letters, or the source itself
recompute.py   `--from --to`: windows computed anew, compared, promoted (tidegate/store/shadow.py has the tables)
splits.py      the log in splits, and the high water before each
task.py        what is done with a split
"""
