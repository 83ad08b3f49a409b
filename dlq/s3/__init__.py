"""Dead letters in S3.

bucket    the service: objects put, listed and read
files     dead letters as Parquet or JSON lines, and back
naming    the name of an object, which a repeat gives again
uploader  the topic's dead letters into objects, each record's before its offset is committed
archive   objects, or the same files in a folder, back into the index
"""
