import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrations.statements import Statement, split


def texts(sql: str) -> list[str]:
    return [statement.text for statement in split(sql)]


def test_statements_come_with_the_line_of_their_first_word() -> None:
    sql = "-- why\n\nCREATE TABLE a (\n  id int\n);\n\n/* and */ INSERT INTO a\nVALUES (1) ;\n"
    assert list(split(sql)) == [
        Statement("CREATE TABLE a (\n  id int\n)", 3, "create"),
        Statement("INSERT INTO a\nVALUES (1)", 7, "insert"),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 'a;b', 'it''s; fine'",
        r"SELECT E'a\';b', e'\\'",
        r"SELECT 'back\', 1",
        'SELECT 1 AS "a;""b"',
        "SELECT $$a;b$$",
        "SELECT $x$a;$$;$y$;b$x$",
        "SELECT $1 + 2 -- a;b\n, 3",
        "SELECT 1 /* ; /* ; */ ; */ + 1",
        "DO $body$ BEGIN PERFORM 1; END $body$",
        "CREATE RULE r AS ON INSERT TO a DO ALSO (DELETE FROM b; DELETE FROM c)",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END",
        "create or replace procedure p() begin atomic select 1; end",
        "SELECT name$with$dollar FROM t WHERE a = '$'",
        "SELECT 'größe; €'",
    ],
)
def test_a_semicolon_inside_does_not_end_a_statement(statement: str) -> None:
    assert texts(f"{statement};\nSELECT 'next'") == [statement, "SELECT 'next'"]


@pytest.mark.parametrize("sql", ["", "  \n", "-- only; a comment", "/* ; */ ; ;;\n"])
def test_nothing_but_comments_holds_no_statement(sql: str) -> None:
    assert texts(sql) == []


@pytest.mark.parametrize("sql", ["SELECT 'a; b", 'SELECT "a; b', "SELECT $$a; b", "SELECT 1 /* a; b"])
def test_what_is_never_closed_is_left_to_postgres_to_refuse(sql: str) -> None:
    assert texts(sql) == [sql]


def test_a_position_in_an_error_is_told_as_a_line_of_the_file() -> None:
    (_, second) = split("SELECT 1;\nSELECT 1,\n  2,\n  oops;")
    assert second.line_of(str(second.text.index("oops") + 1)) == 4
    assert second.line_of(None) == 2


def test_begin_and_prepare_transaction_are_told_from_prepare() -> None:
    assert [s.keyword for s in split("BEGIN; PREPARE TRANSACTION 'x'; PREPARE q AS SELECT 1;")] == [
        "begin",
        "prepare transaction",
        "prepare",
    ]


@given(st.text(alphabet="a;'\"$\\-*/()e \nBEGINATOMICcreatefunctionend", max_size=80))
def test_no_text_is_lost_or_invented(sql: str) -> None:
    position = 0
    for statement in split(sql):
        position = sql.index(statement.text, position) + len(statement.text)
        assert statement.text.strip() == statement.text
        assert sql.splitlines()[statement.line - 1].find(statement.text.splitlines()[0]) >= 0
