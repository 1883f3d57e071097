"""Standard streams that are closed or not in UTF-8, or whose reader or terminal goes away while a verb runs."""

import errno
import os
import sys

from fsd_tune.progress import PatientStream

# The reader of a pipe (`fsd-tune validate F | head`) or the terminal has gone. A full disk is an error.
_GONE = (errno.EPIPE, errno.EIO)


def prepare_streams() -> None:
    """Make the standard streams usable however the process was started.

    A closed stream (`>&-`) is opened on /dev/null, so that no file of the verb takes its number. Characters that an
    encoding lacks are written as escapes. A stream that is lost falls silent: the verb goes on.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    # Python leaves None for a stream that was closed when it started.
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = PatientStream.around(sys.stdout, _GONE)
    sys.stderr = PatientStream.around(sys.stderr)
