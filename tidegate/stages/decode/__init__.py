"""Decode: bytes to typed columns. Types never coerce; a record that does not fit is refused, and only that record.

msgspec decodes each record to a struct of the schema's types, then each column becomes an Arrow array. Measured with
six fields in batches of 8192: 0.5 µs of processor time per record in all, half of it msgspec's; DuckDB's `from_json`
takes 1.45 µs and reads "12" as 12 without a word. So DuckDB runs the rules and the aggregation, and does not decode.
A refused record costs about 20 µs, most of it for finding out all that is wrong with it.

A name that comes twice in an object: the last one wins, as in most JSON parsers.
"""

from tidegate.stages.decode.decoder import Decoded, Decoder

__all__ = ["Decoded", "Decoder"]
