"""The migration runner on real Postgres."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from migrations.runner import MigrationError, MigrationResult, migrate
from migrations.schema import SCHEMA_FILE, dump_schema, main

CONCURRENT_INDEX = "-- migrate: non-transactional\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_id ON a (id);\n"


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.sql").write_text(text, encoding="utf-8")
    return folder


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(query.encode()).fetchall()


def exists(url: str, relation: str) -> bool:
    return ask(url, f"SELECT to_regclass('{relation}') IS NOT NULL") == [(True,)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(
        tmp_path, **{"0001_first": "CREATE TABLE a (id int);", "0002_second": "ALTER TABLE a ADD b int;"}
    )


def test_each_file_is_applied_once_and_recorded(empty_database_url: str, folder: Path) -> None:
    first = migrate(empty_database_url, folder)
    assert str(first) == "2 applied, 0 skipped"
    write(folder, **{"0003_third": "CREATE TABLE c (id int);"})
    second = migrate(empty_database_url, folder)
    assert second == MigrationResult(("0003_third.sql",), ("0001_first.sql", "0002_second.sql"))
    ledger = ask(
        empty_database_url,
        "SELECT version, name, length(checksum), applied_at <= now() FROM schema_migration ORDER BY version",
    )
    assert ledger == [
        (1, "0001_first.sql", 64, True),
        (2, "0002_second.sql", 64, True),
        (3, "0003_third.sql", 64, True),
    ]


def test_a_check_says_what_is_pending_and_changes_nothing(empty_database_url: str, folder: Path) -> None:
    result = migrate(empty_database_url, folder, check=True)
    assert result == MigrationResult((), (), ("0001_first.sql", "0002_second.sql"))
    assert str(result) == "0 applied, 0 skipped, 2 pending"
    assert not exists(empty_database_url, "schema_migration")
    migrate(empty_database_url, folder)
    assert migrate(empty_database_url, folder, check=True).pending == ()


def test_an_edited_applied_file_is_refused_by_name(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    write(folder, **{"0001_first": "CREATE TABLE a (id bigint);", "0003_third": "CREATE TABLE c ();"})
    with pytest.raises(MigrationError, match=r"^0001_first\.sql was edited after it was applied"):
        migrate(empty_database_url, folder)
    assert not exists(empty_database_url, "c")


def test_other_line_endings_are_no_edit(empty_database_url: str, folder: Path) -> None:
    write(folder, **{"0001_first": "CREATE TABLE a (\n id int\n);"})
    migrate(empty_database_url, folder)
    (folder / "0001_first.sql").write_bytes(b"CREATE TABLE a (\r\n id int\r\n);")
    assert migrate(empty_database_url, folder).applied == ()


def test_a_renamed_applied_file_is_refused(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    (folder / "0002_second.sql").rename(folder / "0002_two.sql")
    with pytest.raises(MigrationError, match=r"0002_two\.sql was applied as 0002_second\.sql"):
        migrate(empty_database_url, folder)


def test_a_failing_file_leaves_nothing_and_names_its_line(empty_database_url: str, folder: Path) -> None:
    bad = "CREATE TABLE c (id int);\n\nINSERT INTO c\nSELECT 1,\n       oops;\nCREATE TABLE d ();"
    write(folder, **{"0003_bad": bad, "0004_after": "CREATE TABLE e ();"})
    with pytest.raises(MigrationError, match=r'^0003_bad\.sql:5 failed: column "oops" does not exist'):
        migrate(empty_database_url, folder)
    assert exists(empty_database_url, "a")
    assert not exists(empty_database_url, "c")
    assert not exists(empty_database_url, "e")
    write(folder, **{"0003_bad": bad.replace("1,\n       oops", "1")})
    assert migrate(empty_database_url, folder).applied == ("0003_bad.sql", "0004_after.sql")


def test_a_failure_at_commit_leaves_nothing(empty_database_url: str, tmp_path: Path) -> None:
    sql = (
        "CREATE TABLE a (id int PRIMARY KEY);\n"
        "CREATE TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED);\n"
        "INSERT INTO b VALUES (1);"
    )
    with pytest.raises(MigrationError, match=r"0001_bad\.sql failed at its commit: insert or update"):
        migrate(empty_database_url, write(tmp_path, **{"0001_bad": sql}))
    assert not exists(empty_database_url, "a")
    assert ask(empty_database_url, "SELECT count(*) FROM schema_migration") == [(0,)]


@pytest.mark.parametrize("word", ["COMMIT", "BEGIN", "ROLLBACK", "START TRANSACTION", "END", "ABORT"])
def test_a_file_cannot_end_its_transaction(empty_database_url: str, tmp_path: Path, word: str) -> None:
    write(tmp_path, **{"0001_bad": f"CREATE TABLE a ();\n{word};\nSELECT oops;"})
    with pytest.raises(MigrationError, match=r"0001_bad\.sql:2 controls the transaction"):
        migrate(empty_database_url, tmp_path)
    assert not exists(empty_database_url, "a")


def test_settings_of_one_file_reach_neither_ledger_nor_the_next(
    empty_database_url: str, tmp_path: Path
) -> None:
    hidden = "CREATE SCHEMA hidden;\nSET search_path = hidden;\nCREATE TABLE a ();"
    write(tmp_path, **{"0001_hidden": hidden, "0002_open": "CREATE TABLE b ();"})
    migrate(empty_database_url, tmp_path)
    assert exists(empty_database_url, "hidden.a")
    assert exists(empty_database_url, "public.b")
    assert exists(empty_database_url, "public.schema_migration")


def test_a_non_transactional_file_runs_alone(empty_database_url: str, folder: Path) -> None:
    write(folder, **{"0003_index": CONCURRENT_INDEX})
    assert migrate(empty_database_url, folder).applied[-1] == "0003_index.sql"
    assert exists(empty_database_url, "a_id")
    assert migrate(empty_database_url, folder).applied == ()


def test_without_the_mark_the_same_file_is_refused_by_postgres(empty_database_url: str, folder: Path) -> None:
    write(folder, **{"0003_index": f"-- why\n{CONCURRENT_INDEX}"})
    with pytest.raises(MigrationError, match=r"0003_index\.sql:3 failed: CREATE INDEX CONCURRENTLY cannot"):
        migrate(empty_database_url, folder)


def test_a_failing_non_transactional_file_is_not_recorded_and_says_what_stays(
    empty_database_url: str, folder: Path
) -> None:
    write(folder, **{"0003_index": f"{CONCURRENT_INDEX}SELECT oops;\n"})
    with pytest.raises(MigrationError, match=r"0003_index\.sql:3 failed: .*statements before that line stay"):
        migrate(empty_database_url, folder)
    assert exists(empty_database_url, "a_id")
    write(folder, **{"0003_index": CONCURRENT_INDEX})
    assert migrate(empty_database_url, folder).applied == ("0003_index.sql",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"0001_a": "SELECT 1", "0001_b": "SELECT 1"}, "0001_a.sql and 0001_b.sql have the same number"),
        ({"0001_a": "SELECT 1", "0003_c": "SELECT 1"}, "migration 0002 is missing before 0003_c.sql"),
        ({"0002_b": "SELECT 1"}, "migration 0001 is missing before 0002_b.sql"),
        ({"0001_a": "SELECT 1", "0000_z": "SELECT 1"}, "0000_z.sql"),
        ({"1_a": "SELECT 1"}, "1_a.sql is no migration's name"),
        ({"0001-a": "SELECT 1"}, "0001-a.sql is no migration's name"),
        ({"0001_a": "-- nothing"}, "0001_a.sql holds no statement"),
        ({}, "holds no migrations"),
    ],
)
def test_a_folder_that_is_not_in_order_is_refused(
    empty_database_url: str, tmp_path: Path, files: dict[str, str], message: str
) -> None:
    with pytest.raises(MigrationError) as caught:
        migrate(empty_database_url, write(tmp_path, **files))
    assert message in str(caught.value)
    assert not exists(empty_database_url, "schema_migration")


def test_text_that_is_not_utf_8_is_refused(empty_database_url: str, tmp_path: Path) -> None:
    (tmp_path / "0001_a.sql").write_bytes(b"SELECT '\xff'")
    with pytest.raises(MigrationError, match=r"0001_a\.sql is not UTF-8"):
        migrate(empty_database_url, tmp_path)


def test_a_newer_database_is_refused(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(MigrationError, match=r"has 0002_second\.sql applied.*newer Berth.*update"):
        migrate(empty_database_url, folder)


def test_a_file_that_comes_before_an_applied_one_is_refused(empty_database_url: str, folder: Path) -> None:
    migrate(empty_database_url, folder)
    ask(empty_database_url, "DELETE FROM schema_migration WHERE version = 1 RETURNING 1")
    with pytest.raises(MigrationError, match=r"0001_first\.sql comes before 0002_second\.sql"):
        migrate(empty_database_url, folder)


def test_many_at_once_apply_each_file_once(empty_database_url: str, folder: Path) -> None:
    """With a concurrent index among the files, which waits for every snapshot: also for other runners'."""
    write(folder, **{"0003_index": CONCURRENT_INDEX, "0004_rows": "INSERT INTO a VALUES (1)"})
    barrier = threading.Barrier(4)

    def one(_: int) -> int:
        barrier.wait(timeout=10)
        return len(migrate(empty_database_url, folder).applied)

    with ThreadPoolExecutor(4) as pool:
        applied = list(pool.map(one, range(4)))
    assert sorted(applied) == [0, 0, 0, 4]
    assert ask(empty_database_url, "SELECT count(*) FROM a") == [(1,)]


def test_waiting_for_another_migration_is_bounded(
    empty_database_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migrations.runner._LOCK_WAIT_SECONDS", 0.3)
    with psycopg.connect(empty_database_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (0x62657274685F6D69,))
        with pytest.raises(MigrationError, match="another program has been migrating this database"):
            migrate(empty_database_url, folder)
    assert len(migrate(empty_database_url, folder).applied) == 2


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://berth:hunter2@127.0.0.1:1/berth", "cannot be reached"),
        ("postgres//berth:hunter2@127.0.0.1/berth", "URL cannot be read"),
        ("postgresql://berth:hunter2@127.0.0.1:x/berth", "cannot be re"),
    ],
)
def test_an_unusable_url_is_one_sentence_without_the_password(folder: Path, url: str, message: str) -> None:
    with pytest.raises(MigrationError) as caught:
        migrate(url, folder)
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_in_the_url_are_kept(empty_database_url: str, folder: Path) -> None:
    with psycopg.connect(empty_database_url) as conn:
        conn.execute("CREATE SCHEMA other")
    migrate(f"{empty_database_url}?options=-csearch_path%3Dother", folder)
    assert exists(empty_database_url, "other.a")


def test_a_role_without_rights_is_told_so(empty_database_url: str, folder: Path) -> None:
    role, url = "berth_without_rights", urlsplit(empty_database_url)
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'hunter2'".encode())
        try:
            stranger = url._replace(netloc=f"{role}:hunter2@{url.hostname}:{url.port}").geturl()
            with pytest.raises(MigrationError, match=r"refused .permission denied for schema public.*owns"):
                migrate(stranger, folder)
        finally:
            conn.execute(f"DROP ROLE {role}".encode())


def test_the_committed_schema_is_what_the_migrations_make(database_url: str) -> None:
    assert dump_schema(database_url) == SCHEMA_FILE.read_text(encoding="utf-8"), (
        "run `python -m migrations.schema` and commit migrations/schema.sql"
    )


def test_a_difference_in_the_schema_shows_in_its_dump(database_url: str) -> None:
    with psycopg.connect(database_url) as conn:
        conn.execute("CREATE INDEX extra ON customer (name)")
    before = set(SCHEMA_FILE.read_text(encoding="utf-8").splitlines())
    after = set(dump_schema(database_url).splitlines())
    assert after - before == {"CREATE INDEX extra ON public.customer USING btree (name);"}


def test_the_schema_is_regenerated_by_a_command(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERTH_DATABASE_URL", database_url)
    main(tmp_path / "schema.sql")
    assert (tmp_path / "schema.sql").read_bytes() == SCHEMA_FILE.read_bytes()
    left = ask(database_url, "SELECT datname FROM pg_database WHERE datname LIKE 'berth_schema_%'")
    assert left == []


@pytest.mark.parametrize("url", ["", "postgresql://berth:hunter2@127.0.0.1:1/x", "nonsense hunter2"])
def test_regenerating_needs_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    monkeypatch.setenv("BERTH_DATABASE_URL", url)
    with pytest.raises(SystemExit) as caught:
        main(tmp_path / "schema.sql")
    assert "hunter2" not in str(caught.value)
    assert not (tmp_path / "schema.sql").exists()


def test_the_api_may_act_as_the_customers_role(database_url: str) -> None:
    """Row-level security stands only if whoever serves customers can become berth_customer (invariant 11)."""
    with psycopg.connect(database_url) as conn:
        conn.execute("INSERT INTO customer (id, email, name) VALUES ('a', 'a@x', 'A'), ('b', 'b@x', 'B')")
        conn.execute("SET LOCAL ROLE berth_customer")
        conn.execute("SELECT set_config('berth.customer_id', 'a', true)")
        assert conn.execute("SELECT id FROM customer").fetchall() == [("a",)]
