# SPDX-FileCopyrightText: The seg_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`models pull`: from a server on this machine, which breaks and lies; what arrives is the file, or nothing."""

import hashlib
import http.server
import json
import threading

import numpy as np
import pytest
import yaml

from seg_perception.backends.progress import BuildCancelledError, watching
from seg_perception.cli import main
from seg_perception.options import ConfigError
from seg_perception.zoo import download as downloading
from seg_perception.zoo.download import download
from seg_perception.zoo.manifest import read_manifest

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT under any path but /missing; `breaks` are the numbers of bytes after which answers end early."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.breaks, self.ranges, self.errors, self.asked = CONTENT, [], True, [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/net.onnx"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range", "")
        server.asked.append(wanted)
        if self.path == "/missing" or server.errors:
            self.send_error(server.errors.pop() if server.errors else 404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        total = len(server.content)
        if start >= total:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        stop = start + server.breaks.pop(0) if server.breaks else total
        self.wfile.write(server.content[start:stop])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloading, "PAUSE", 0.01)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(*arguments, **options):
    with pytest.raises(ConfigError) as error:
        download(*arguments, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_whole_file_arrives(server, tmp_path):
    fractions = []
    with watching(lambda progress: fractions.append(progress.fraction)):
        download(server.url, tmp_path / "net.onnx", SHA256, len(CONTENT))
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT
    assert left(tmp_path) == ["net.onnx"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_it_goes_on_where_the_connection_broke(server, tmp_path):
    server.breaks = [100_000, 50_000]
    download(server.url, tmp_path / "net.onnx", SHA256)
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=100000-", "bytes=150000-"]


def test_it_goes_on_after_a_cancel(server, tmp_path):
    def cancel(progress):
        return not progress.fraction > 0.5

    with watching(cancel), pytest.raises(BuildCancelledError):
        download(server.url, tmp_path / "net.onnx", SHA256)
    (part,) = left(tmp_path)
    have = (tmp_path / part).stat().st_size
    assert part.startswith(".net.onnx.")
    assert 0.5 < have / len(CONTENT) < 0.9
    download(server.url, tmp_path / "net.onnx", SHA256)
    assert server.asked[-1] == f"bytes={have}-"
    assert left(tmp_path) == ["net.onnx"]


def test_a_server_without_ranges_is_asked_for_everything_again(server, tmp_path):
    server.breaks, server.ranges = [100_000], False
    download(server.url, tmp_path / "net.onnx", SHA256)
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT


def test_a_part_that_is_complete_is_only_checked(server, tmp_path):
    part = tmp_path / f".net.onnx.{SHA256[:12]}.part"
    part.write_bytes(CONTENT)
    download(server.url, tmp_path / "net.onnx", SHA256)
    assert server.asked == [f"bytes={len(CONTENT)}-"]
    part.write_bytes(CONTENT + b"more")
    download(server.url, tmp_path / "net.onnx", SHA256)
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT


def test_another_file_is_refused_and_nothing_of_it_stays(server, tmp_path):
    server.content = CONTENT[:-1] + b"x"
    assert f"expected {SHA256[:16]}" in refused(server.url, tmp_path / "net.onnx", SHA256)
    assert left(tmp_path) == []
    assert "the server has 300000" in refused(server.url, tmp_path / "net.onnx", SHA256, 5)
    assert left(tmp_path) == []


def test_a_server_that_keeps_failing_is_given_up(server, tmp_path):
    server.errors = [503] * 9
    assert "the server says 503" in refused(server.url, tmp_path / "net.onnx", SHA256)
    assert len(server.asked) == downloading.TRIES
    server.errors = []
    server.breaks = [1000] * 9
    assert "0.0 MB are kept" in refused(server.url, tmp_path / "net.onnx", SHA256)
    server.breaks = []
    missing = server.url.replace("net.onnx", "missing")
    before = len(server.asked)
    assert "the server says 404" in refused(missing, tmp_path / "other.onnx", SHA256)
    assert len(server.asked) == before + 1  # asking again helps nobody


def test_no_room_is_said_before(server, tmp_path):
    assert "MB free" in refused(server.url, tmp_path / "net.onnx", SHA256, 1 << 60)
    assert server.asked == []


def manifest(server, tmp_path, **changes):
    about = {"file": "net.onnx", "url": server.url, "sha256": SHA256, "licence": "MIT", "about": "a net", **changes}
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump({"models": {"net": about}}))
    return ["--manifest", str(path), "--into", str(tmp_path / "models")]


def test_pull_shows_the_licence_and_fetches_only_when_it_is_accepted(server, tmp_path, capsys):
    arguments = ["models", "pull", "net", *manifest(server, tmp_path, licence_url="https://example.org/mit")]
    assert main(arguments) == 1
    assert "licence MIT, https://example.org/mit: read it, and say --accept-licence" in capsys.readouterr().err
    assert server.asked == []
    assert main([*arguments, "--accept-licence", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["sha256"] == SHA256
    assert "licence MIT" in printed.err
    assert (tmp_path / "models/net.onnx").read_bytes() == CONTENT
    assert main(arguments) == 0  # it is there: nothing to accept
    assert "is there already" in capsys.readouterr().out
    (tmp_path / "models/net.onnx").write_bytes(b"mine")
    assert main(arguments) == 1
    assert "another file of that name is there" in capsys.readouterr().err
    assert (tmp_path / "models/net.onnx").read_bytes() == b"mine"


def test_an_address_needs_its_sha256(server, tmp_path, capsys):
    arguments = ["models", "pull", server.url, "--into", str(tmp_path), "--accept-licence"]
    assert main(arguments) == 1
    assert "say --sha256 as its publisher states it" in capsys.readouterr().err
    assert main([*arguments, "--sha256", SHA256.upper(), "--licence", "MIT"]) == 0
    assert (tmp_path / "net.onnx").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"url": "file:///etc/passwd"}, "url: expected http:// or https://"),
        ({"file": "../net.onnx"}, "file: expected a file name"),
        ({"sha256": "12"}, "sha256: expected 64 hexadecimal digits"),
        ({"licence": ""}, "licence: expected its name"),
        ({"url": "", "export": "make it yourself"}, "no address is known for it (licence MIT); make it yourself"),
        ({"sise": 3}, "unknown key"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_one_line(changes, line, server, tmp_path, capsys):
    assert main(["models", "pull", "net", *manifest(server, tmp_path, **changes), "--accept-licence"]) == 1
    error = capsys.readouterr().err.strip()
    assert line in error
    assert "\n" not in error


def test_an_unknown_name_is_told_from_a_slip(server, tmp_path, capsys):
    assert main(["models", "pull", "nett", *manifest(server, tmp_path)]) == 1
    assert "did you mean 'net'?" in capsys.readouterr().err


def test_the_shipped_manifest_states_the_files_that_are_here(models_dir):
    known = read_manifest()
    assert known
    for model in known.values():
        content = (models_dir / model.file).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (model.bytes, model.sha256)
        assert model.licence
        assert model.export
