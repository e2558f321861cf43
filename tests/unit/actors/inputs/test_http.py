"""Fetching over http, from a server of this test that does what no server should."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rendermill.actors.media.inputs.options import BadInput, InputOptions
from rendermill.actors.media.inputs.sources.fetch import Fetcher, Wanted

_LIMIT = 100_000


class _Server(BaseHTTPRequestHandler):
    answers: dict[str, int]

    def do_GET(self):
        name = self.path.strip("/").partition("?")[0]
        self.answers[name] = self.answers.get(name, 0) + 1
        {
            "bucket/good.png": self._good,
            "loop": lambda: self._redirect("/loop"),
            "metadata": lambda: self._redirect("http://169.254.169.254/token"),
        }.get(name, getattr(self, f"_{name}", self._missing))()

    def _answer(self, status, body=b"", **headers):
        self.send_response(status)
        for key, value in {"Content_Length": len(body), **headers}.items():
            if value is not None:
                self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def _redirect(self, url):
        self._answer(302, Location=url)

    def _missing(self):
        self._answer(404)

    def _good(self):
        self._answer(200, b"picture")

    def _moved(self):
        self._redirect("good?x=1")

    def _file(self):
        self._redirect("file:///etc/passwd")

    def _outside(self):
        self._redirect(f"http://localhost:{self.server.server_port}/good")

    def _forbidden(self):
        self._answer(403)

    def _flaky(self):
        self._answer(200, b"at last") if self.answers["flaky"] > 1 else self._answer(503)

    def _down(self):
        self._answer(500)

    def _bomb(self):
        self._answer(200, gzip.compress(bytes(50 * _LIMIT)), Content_Encoding="gzip")

    def _huge(self):
        self._answer(200, b"", Content_Length=10**10)

    def _endless(self):
        self._answer(200, Content_Length=None)
        try:
            while True:
                self.wfile.write(bytes(2**16))
        except OSError:
            pass

    def _silent(self):
        self.server.ended.wait(30)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    server.ended = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.ended.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetcher(server, tmp_path):
    _Server.answers = {}
    made = []

    def make(**options):
        allow = options.pop("allow", (f"{server}/",))
        given = {"private_networks": True, "max_bytes": _LIMIT, "timeout_seconds": 10.0} | options
        made.append(Fetcher(InputOptions(str(tmp_path), allow=allow, **given), "run"))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("name", ["good", "moved"])
def test_what_is_read(server, fetcher, name):
    assert fetcher().fetch(Wanted(f"{server}/{name}")) == b"picture"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("loop", "redirects more than 5 times"),
        ("metadata", "169.254.169.254/token is outside the places"),
        ("outside", "is outside the places"),
        ("file", "neither https nor http"),
        ("nothing", "answers 404 Not Found"),
        ("forbidden", "answers 403"),
        ("huge", "has 10000000000 bytes, more than the 100000 bytes"),
        ("endless", "has more than the 100000 bytes"),
        ("bomb", "has more than the 100000 bytes"),
    ],
)
def test_what_costs_its_row_at_once(server, fetcher, name, words):
    with pytest.raises(BadInput, match=words):
        fetcher(patience_seconds=60.0).fetch(Wanted(f"{server}/{name}"))
    assert _Server.answers[name] == (6 if name == "loop" else 1)


def test_server_that_does_not_answer(server, fetcher):
    with pytest.raises(BadInput, match=r"was not read within 0\.2 s"):
        fetcher(timeout_seconds=0.2).fetch(Wanted(f"{server}/silent"))


def test_patience_with_a_server_that_fails_for_a_while(server, fetcher):
    assert fetcher(patience_seconds=60.0).fetch(Wanted(f"{server}/flaky")) == b"at last"


def test_patience_with_a_server_ends_for_all_its_files(server, fetcher):
    one = fetcher(patience_seconds=0.5)
    for _ in range(2):
        with pytest.raises(BadInput, match=r"cannot be read: .* answers 500"):
            one.fetch(Wanted(f"{server}/down"))
        first = _Server.answers.get("first", _Server.answers["down"])
        _Server.answers["first"] = first
    assert _Server.answers["down"] == first + 1


def test_private_addresses_are_refused_when_connecting(server, fetcher):
    port = server.rpartition(":")[2]
    hosts = ("127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]")
    for host in hosts:
        url = f"http://{host}:{port}/good"
        with pytest.raises(BadInput, match=r"which is not public|not a canonical"):
            fetcher(private_networks=False, allow=(f"http://{host}:{port}/",)).fetch(Wanted(url))
    assert _Server.answers == {}


def test_redirect_to_a_private_address_is_refused(server, fetcher, monkeypatch):
    """The first server is the job's own, which may have a private address; the one it leads to may not."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    allow = (f"{server}/", server.replace("127.0.0.1", "localhost") + "/")
    one = fetcher(private_networks=False, allow=allow)
    assert one.fetch(Wanted(f"{server}/good")) == b"picture"
    with pytest.raises(BadInput, match="which is not public"):
        one.fetch(Wanted(f"{server}/outside"))
    assert _Server.answers == {"good": 1, "outside": 1}


def test_host_that_does_not_exist(fetcher):
    with pytest.raises(BadInput, match="no-such-host"):
        fetcher(allow=None).fetch(Wanted("https://no-such-host.invalid/a.png"))


def test_inputs_on_an_s3_server_of_their_own(server, fetcher, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing answers there
    one = fetcher(allow=("s3://bucket/",), s3_endpoint=server)
    assert one.fetch(Wanted("s3://bucket/good.png")) == b"picture"
    with pytest.raises(BadInput, match="there is no such file"):
        one.fetch(Wanted("s3://bucket/nothing.png"))


def test_content_other_than_the_row_asks_for(server, fetcher):
    with pytest.raises(BadInput, match="the row asks for"):
        fetcher().fetch(Wanted(f"{server}/good", "0" * 64))
