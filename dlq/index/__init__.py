"""The index of dead letters: what is searched, grouped, counted and worked on. Raw bytes stay in the topic.

tables     letters, groups with their counters, facets, rates, offsets, history
database   PostgreSQL or a SQLite file; made or checked; transactions
masking    what must not get in
letters    a dead letter as a row
writer     batches in, exactly once; counters: what they add to their groups
filters    which letters: one model for shell, console, API and replay
search     pages of letters; groups, history (the audit log), totals: the other readers, on `reading`
lifecycle  acknowledge, resolve, park; the history
"""
