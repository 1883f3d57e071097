"""Copy an SQLite database while another thread or process may write to it."""

import sqlite3
from contextlib import closing
from pathlib import Path


def copy_database(source: Path, target: Path) -> bool:
    """Copy an SQLite database through SQLite itself, so that the copy is consistent.

    Args:
        source: the database, which may be in use.
        target: the copy, a new file.

    Returns:
        True if the copy was made; False if `source` is damaged.
    """
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        try:
            database.backup(copy)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorname not in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
                raise
            return False
    return True
