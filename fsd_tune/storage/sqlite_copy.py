"""Copy an SQLite database while another thread or process may write to it."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from fsd_tune.storage import waiting

# Databases are locked for moments, except by a program that was left open with an unfinished change.
_COPY_SECONDS = 15.0
_WRITE_SECONDS = 120.0

Result = TypeVar("Result")


def copy_database(source: Path, target: Path) -> bool:
    """Copy an SQLite database through SQLite itself, so that the copy is consistent.

    Args:
        source: the database, which may be in use.
        target: the copy, a new file.

    Returns:
        True if the copy was made; False if `source` is damaged.

    Raises:
        WaitedTooLongError: another program has locked it and does not let go.
    """
    wait = _wait_for_lock(source, _COPY_SECONDS)

    def stepped(status: int, remaining: int, total: int) -> None:
        # SQLite itself would try for ever, and Ctrl-C would do nothing meanwhile.
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            wait.pause(0.0)

    uri = f"{source.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=0)) as database, closing(sqlite3.connect(target)) as copy:
            database.backup(copy, progress=stepped)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            return False
        if not isinstance(error, sqlite3.OperationalError):
            raise
        # A killed writer leaves a journal that a reader cannot roll back, so roll back in the copy.
        for ending in ("", "-journal", "-wal"):
            if (path := source.with_name(source.name + ending)).exists():
                shutil.copyfile(path, target.with_name(target.name + ending))
    return True


class PatientConnection(sqlite3.Connection):
    """A connection that waits while another program has locked the database; a `factory` for `sqlite3.connect`.

    Unlike SQLite's own timeout it says whom it waits for, and Ctrl-C ends it. After one wait that was too long, later
    calls fail at once.
    """

    def __init__(self, database: Any, *arguments: Any, **keywords: Any) -> None:
        super().__init__(database, *arguments, **(keywords | {"timeout": 0}))
        self._path = Path(database)
        self._limit = _WRITE_SECONDS

    def cursor(self, factory: Any = None) -> Any:
        """Return a cursor that waits, too."""
        return _PatientCursor(self)

    def commit(self) -> None:
        """Commit the transaction."""
        self.patiently(super().commit)

    def patiently(self, work: Callable[[], Result]) -> Result:
        """Call `work`, and again while the database is locked.

        Args:
            work: one call of SQLite's.

        Raises:
            WaitedTooLongError: the other program does not let go.
        """
        wait = _wait_for_lock(self._path, self._limit)
        while True:
            try:
                return work()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise
            try:
                wait.pause(0.05)
            except waiting.WaitedTooLongError:
                self._limit = 0.0
                raise


class _PatientCursor(sqlite3.Cursor):
    def __init__(self, connection: PatientConnection) -> None:
        super().__init__(connection)
        self._owner = connection

    def execute(self, *arguments: Any) -> Any:
        return self._owner.patiently(lambda: super(_PatientCursor, self).execute(*arguments))

    def executemany(self, *arguments: Any) -> Any:
        return self._owner.patiently(lambda: super(_PatientCursor, self).executemany(*arguments))


def _wait_for_lock(path: Path, limit: float) -> waiting.Wait:
    return waiting.wait_for_holder(path, f"has locked {path}", limit)
