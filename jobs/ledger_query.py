"""A first look at the ledger query: one statement, and one that reads.

This refuses slips early and by name. What makes the read safe is the read-only transaction it runs in.
"""

from __future__ import annotations

import re

_SKIPPED = re.compile(
    r"""
      --[^\n]*                              # a comment to the end of the line
    | /\*.*?(?:\*/|\Z)                      # a comment between marks
    | '(?:[^'\\]|''|\\.)*(?:'|\Z)           # text
    | "(?:[^"]|"")*(?:"|\Z)                 # a quoted name
    | `[^`]*(?:`|\Z)                        # a quoted name (MySQL)
    | \$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z)  # text between dollar marks (PostgreSQL)
    """,
    re.VERBOSE | re.DOTALL,
)


def tidy_query(query: str) -> str:
    """The query without surrounding space and without its closing semicolon, which a cursor would stumble over."""
    return query.strip().rstrip(";").rstrip()


def query_problem(query: str) -> str | None:
    """What keeps this from being one SELECT, or None where it is one."""
    if "\x00" in query:
        return "holds a NUL character"
    bare = _SKIPPED.sub(" ", tidy_query(query))
    first = re.match(r"[\s(]*([A-Za-z]+)", bare)
    if not first:
        return "is empty"
    if first[1].upper() not in ("SELECT", "WITH"):
        return f"begins with {first[1][:20].upper()}, but only SELECT or WITH … SELECT is run"
    if ";" in bare:
        return "holds more than one statement"
    return None
