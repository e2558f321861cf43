"""The texts of errors: of exceptions that cannot describe themselves, of secrets in URLs, of stores without reasons."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import s3fs

from rendermill.manifests.errors import UserError, one_line, traceback_of
from rendermill.manifests.output.lease import Lease
from rendermill.manifests.storage.folder import Folder


class Wordless(Exception):
    def __str__(self) -> str:
        raise RecursionError


class Hostile(Wordless):
    @property
    def __notes__(self) -> list[str]:
        raise KeyError

    @property
    def __cause__(self) -> BaseException:
        raise ValueError


@pytest.mark.parametrize("kind", [Wordless, Hostile])
def test_an_exception_that_cannot_tell_of_itself_is_told_by_its_class(kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        raise kind
    raised = caught.value
    assert one_line(raised) == f"{kind.__name__}; its message cannot be read (RecursionError)"
    told = traceback_of(raised)
    assert kind.__name__ in told
    assert "test_errors.py" in told


def test_an_error_has_no_secret_of_a_url() -> None:
    assert one_line(UserError("http://me:secret@host/x")) == "http://me:***@host/x"


@pytest.fixture
def unhelpful_store(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """An S3 server that refuses everything; gives the list whose last element is its reason, in XML."""
    reasons: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<?xml version='1.0'?><Error>" + reasons[-1] + b"</Error>"
            self.send_response(403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    s3fs.S3FileSystem.clear_instance_cache()  # which knows the address of another test's server
    yield reasons
    s3fs.S3FileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()


def test_a_store_that_gives_no_reason_is_told_by_its_code(unhelpful_store: list[bytes]) -> None:
    for code in (b"AccessDenied", b"InvalidArgument", b"QuotaExceeded"):  # s3fs has an error of its own for each
        for message in (b"<Message>None</Message>", b"<Message/>", b"<Message> </Message>"):
            unhelpful_store.append(b"<Code>" + code + b"</Code>" + message)
            with pytest.raises(UserError) as refused:
                Lease(Folder("s3://bucket/out"), "run").acquire()
            assert str(refused.value) == (
                f"output s3://bucket/out: cannot be written: An error occurred ({code.decode()}) when calling the "
                "ListObjectsV2 operation"
            )
