"""An S3 server on localhost (moto's, a process of its own), and the environment that pyarrow reads keys from."""

import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_EC2_METADATA_DISABLED": "true"}
# Beside the virtual environment, see tests/cluster/requirements.txt.
PACKAGES = Path(sys.prefix) / "cluster"


def missing() -> str:
    """Why there is no server here; empty where there is."""
    return "" if (PACKAGES / "moto").is_dir() else "needs moto: `make .venv/installed-test`"


_SERVE = """
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
server = make_server(sys.argv[1], 0, DomainDispatcherApplication(create_backend_app), threaded=True)
print(server.port, flush=True)
server.serve_forever()
"""


class Server:
    """It can be taken away and come back with what it held, like storage that is out for a minute.

    Attributes:
        bucket: where everything lies.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host, self.bucket = host, "bucket"
        environment = os.environ | KEYS | {"PYTHONPATH": str(PACKAGES)}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, host], env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        # It listens when it prints its port.
        self.port = int(self._process.stdout.readline())
        self._ask("PUT", f"/{self.bucket}")

    def put(self, key: str, content: bytes) -> None:
        """Store a file under any key, also one that a file system cannot have."""
        self._ask("PUT", f"/{self.bucket}/{urllib.parse.quote(key, safe='')}", content)

    def _ask(self, method: str, path: str, sent: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://{self.host}:{self.port}{path}", method=method, data=sent)
        with urllib.request.urlopen(request, timeout=10) as answer:
            content: bytes = answer.read()
        return content

    def uri(self, *names: str) -> str:
        """The URI of a place in the bucket."""
        path = "/".join((self.bucket, *names))
        return f"s3://{path}?scheme=http&endpoint_override={self.host}:{self.port}&region=us-east-1"

    def pause(self) -> None:
        """It answers nothing any more."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It answers again."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def running(host: str = "127.0.0.1") -> Iterator[Server]:
    """A server for as long as the body runs."""
    server = Server(host)
    try:
        yield server
    finally:
        server.stop()
