"""The fallback: Spark takes over what the workers have not done, and hands the pipeline back.

run.py       a catch-up from start to end: hold, drain, hand back
hold.py      the hold on the pipeline that workers respect, renewed while this process lives
needs.py     what a pipeline must be for it, and what Spark is given of it
offsets.py   the group's offsets, for whoever watches them
view.py      how it goes, for people
recording.py how it goes, for `tidegate batch list` and `status`
policy.py    when it is time for one, from the pipeline file's `fallback`
look.py      what it is decided by: lag, age, workers
watch.py     looks at lag and workers again and again, and suggests a catch-up or makes it
"""
