"""Replay: dead letters chosen by a filter go back to a topic, each once, and it is followed what becomes of them.

request   what somebody wants: which letters, to where, mended how, how fast, when to stop
targets   where letters may go
mend      SQL assignments over value and key
outgoing  a dead letter as it is sent, or why it is not
raw       the raw records, from their topics, in bulk
preview   how many, to where, and how many would pass now
jobs      the table of jobs: made, claimed, paused, resumed, cancelled
sender    one transaction per chunk: the records and the job's progress
follow    what came back: the position of the pipeline, and the dead-letter topics
outcome   what became of each, written down; letters closed; names: how that is called
run       a job at work, one turn after another; agent: whoever works on jobs
"""
