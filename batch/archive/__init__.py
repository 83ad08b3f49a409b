"""`tidegate batch archive`: source topics as Parquet, so that a backfill can go back further than retention.

layout.py   what lies where, on disk or in S3, and which names it has
write.py    why a record is there exactly once
read.py     the log again, from an archive as far as it goes and from Kafka behind it
"""
