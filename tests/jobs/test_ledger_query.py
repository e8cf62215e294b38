from __future__ import annotations

import pytest

from jobs.ledger_query import query_problem, tidy_query


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "  select a from b ;  ",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "(SELECT 1) UNION (SELECT 2)",
        "-- the ledger; nightly\nSELECT 1",
        "/* a; b */ SELECT 1",
        "SELECT ';' AS a, 'it''s; ' AS b, \"odd;name\" FROM t",
        "SELECT $$ ; $$, $tag$ ; $tag$",
        "SELECT `a;b` FROM t",
        "SELECT 1 -- the end; really",
    ],
)
def test_one_reading_statement_is_accepted(query: str) -> None:
    assert query_problem(query) is None


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("", "is empty"),
        (" ; ", "is empty"),
        ("-- SELECT 1", "is empty"),
        ("DELETE FROM t", "begins with DELETE"),
        ("-- SELECT\nDROP TABLE t", "begins with DROP"),
        ("/* SELECT */ UPDATE t SET a = 1", "begins with UPDATE"),
        ("SELECTED", "begins with SELECTED"),
        ("SELECT 1; DELETE FROM t", "more than one statement"),
        ("SELECT 1 /* ; */ ; COMMIT;", "more than one statement"),
        ("SELECT 'a'; DROP TABLE t --'", "more than one statement"),
        ("SELECT 1\x00", "NUL"),
    ],
)
def test_anything_else_is_named(query: str, problem: str) -> None:
    assert problem in (query_problem(query) or "")


def test_the_closing_semicolon_is_left_out() -> None:
    assert tidy_query(" SELECT 1 ; ;\n") == "SELECT 1 ;"
    assert tidy_query("SELECT ';'") == "SELECT ';'"
