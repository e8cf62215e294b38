"""The output: tables built from the core's values, and the files that are published from them.

`columns` and `closed_lists` say what is written; `tables`, `control` and `summary` build it and are pure; `csv_files` and
`parquet_files` turn a table into bytes; `files` publishes a report through `disk`; `verification` checks one afterwards.
"""
