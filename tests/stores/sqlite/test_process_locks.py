import os
import stat
from pathlib import Path

from filelock import Timeout

from antiphon.stores.sqlite.process_locks import ProcessLocks


def test_registered_owner_is_alive_until_it_releases(tmp_path: Path) -> None:
    one, two = ProcessLocks(tmp_path), ProcessLocks(tmp_path)
    one.register()
    assert two.is_alive(one.owner_id)
    assert one.is_alive(one.owner_id)
    assert one.owner_id != two.owner_id
    one.release()
    one.release()
    assert not two.is_alive(one.owner_id)
    two.release()
    assert list(tmp_path.iterdir()) == []


def test_unlocked_owner_file_belongs_to_a_dead_process(tmp_path: Path) -> None:
    owners = ProcessLocks(tmp_path)
    dead = tmp_path / f"{7:016x}.lock"
    dead.touch()
    assert not owners.is_alive(7)
    assert not owners.is_alive(8)
    assert not (tmp_path / f"{8:016x}.lock").exists(), "the check creates no file"


def test_remove_stale_removes_only_files_of_dead_owners(tmp_path: Path) -> None:
    living, sweeper = ProcessLocks(tmp_path), ProcessLocks(tmp_path)
    (tmp_path / f"{7:016x}.lock").touch()
    (tmp_path / "notes.txt").touch()
    living.register()
    with sweeper.open_lock():
        sweeper.register()
        sweeper.remove_stale()
        names_left = {entry.name for entry in tmp_path.iterdir()}
    names = {f"{owner.owner_id:016x}.lock" for owner in (living, sweeper)}
    assert names_left == {"gate.lock", "notes.txt", *names}
    assert sweeper.is_alive(living.owner_id)
    living.release()
    sweeper.release()


def test_open_lock_is_exclusive(tmp_path: Path) -> None:
    one, two = ProcessLocks(tmp_path), ProcessLocks(tmp_path)
    with one.open_lock():
        waiting = two.open_lock()
        try:
            waiting.acquire(timeout=0)
        except Timeout:
            pass
        else:
            raise AssertionError("two locks are held at once")
    with waiting:
        assert waiting.is_locked


def test_lock_files_are_readable_by_the_user_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        owners = ProcessLocks(tmp_path)
        with owners.open_lock():
            owners.register()
        modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        owners.release()
    finally:
        os.umask(old)
    assert modes == {0o600}
