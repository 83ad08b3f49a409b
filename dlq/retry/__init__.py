"""Delayed retries: records that a handler refused wait in topics, one for each delay, and go back to where they came from.

rows      what the batch's transaction writes to them, and what goes back
agent     waits for what is due, and sends it back: offsets and records in one transaction
"""
