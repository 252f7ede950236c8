import os
import sqlite3
from pathlib import Path

import pytest

from antiphon.errors import ConfigError
from antiphon.stores.sqlite.connection import DatabaseConnections, open_database
from antiphon.stores.sqlite.process_locks import ProcessLocks
from antiphon.stores.sqlite.sql_files import migration_names


def close(database: DatabaseConnections) -> None:
    database.write_connection.close()
    database.read_connection.close()
    database.page_file.close()
    database.process_locks.release()


def entry_names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_open_creates_the_file_and_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "my turns?.db"
    close(open_database(path))
    assert entry_names(path.parent) == ["my turns?.db", "my turns?.db-owners"]
    close(open_database(str(path)))


def test_tilde_expands_to_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    database = open_database("~/turns.db")
    assert database.path == tmp_path / "turns.db"
    close(database)


def test_symlink_shares_the_lock_folder_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "turns.db")
    real, linked = open_database(tmp_path / "turns.db"), open_database(tmp_path / "link.db")
    assert real.process_locks.is_alive(linked.process_locks.owner_id)
    assert linked.path == real.path
    close(real)
    close(linked)


def test_connection_uses_wal_full_sync_and_secure_delete(tmp_path: Path) -> None:
    database = open_database(tmp_path / "turns.db")

    def pragma(name: str) -> object:
        return database.write_connection.execute(f"PRAGMA {name}").fetchone()[0]

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2
    assert pragma("secure_delete") == 1
    with pytest.raises(sqlite3.OperationalError):
        database.read_connection.execute("DELETE FROM log")
    close(database)


def test_opening_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder: give the path of a file"):
        open_database(tmp_path)
    assert entry_names(tmp_path) == []


def test_opening_a_text_file_is_refused_and_leaves_it_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear diary, " * 1000)
    with pytest.raises(ConfigError, match=r"letter\.txt: it is not a SQLite database"):
        open_database(path)
    assert path.read_text() == "Dear diary, " * 1000
    assert entry_names(tmp_path) == ["letter.txt"]


def test_opening_another_programs_database_is_refused_and_leaves_it_unchanged(
    tmp_path: Path,
) -> None:
    path = tmp_path / "shopping.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE shopping (item)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="another program's database"):
        open_database(path)
    assert path.read_bytes() == before
    assert entry_names(tmp_path) == ["shopping.db"]


def test_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="give another path"):
        open_database(tmp_path / "file" / "turns.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to the superuser")
def test_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="permission denied"):
        open_database(tmp_path / "turns.db")
    tmp_path.chmod(0o700)


def test_damaged_schema_page_is_reported_on_open(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    close(open_database(path))
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 3000)
    with pytest.raises(ConfigError, match="damaged"):
        open_database(path)


def test_failed_open_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "turns.db"
    close(open_database(path))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA user_version = 1000")
    with pytest.raises(ConfigError, match="newer antiphon"):
        open_database(path)
    connection.execute(f"PRAGMA user_version = {len(migration_names())}")
    connection.close()
    assert entry_names(tmp_path / "turns.db-owners") == ["gate.lock"]
    with ProcessLocks(tmp_path / "turns.db-owners").open_lock():
        assert True
    close(open_database(path))
