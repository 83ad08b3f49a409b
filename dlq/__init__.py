"""Dead letters: what is kept of a record that failed, where it goes, and how it is read again.

letter      a dead letter as it is made; kind: what those of one failure share
writing     a letter as the headers of a Kafka record
envelope    everything about one failure, as it is read from there
collect     a batch's rejected records as letters
late        a batch's late records, by the pipeline's strategy
fingerprint which failures are the same failure
headers     every header name, once
dialects    the headers of Kafka Connect, Spring and Kafka Streams, written and read
policy      the flood guard
publishers  Kafka (in the batch's transaction), log, none, or nowhere to go; several at once
s3          from the topic into objects, and back into the index
placement   which partition of its topic
retry       records that wait before they are dead letters
bounded     a call of Kafka's client that may never come back
trim        deletes what topics of tidegate's own need no longer
reader      the topic, read back

index       groups, search, counters: PostgreSQL or SQLite
agent, app  what fills it, and carries out replays and retries (Faust only in app)
watch       totals, and with retention what is about to expire
replay      previewed, mended, sent back, and followed
service     one pipeline's index and the raw records behind it, for the shell, the console, the API and replays
export      what the index holds as documents and files
cli         the shell
console     pages in a browser and a JSON API
"""
