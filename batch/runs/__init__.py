"""Runs as others see them: their row in the database, and the commands that read it.

recording.py   what a run says of itself, every two seconds and with each micro-batch
view.py        the same for people and for machines
cli.py         `tidegate batch list`, `status` and `stop`
"""
