"""`tidegate batch backfill`: results brought up to what the log says.

late.py      `--late`: the windows that miss late records get them
gather.py    where late records are found: the late topic, the dead letters, or the source itself
"""
