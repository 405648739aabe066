"""Storage: local paths and S3 behave alike, bad addresses get one helpful line, files are whole or absent."""

import http.server
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from conftest import s3_server

from lensray.errors import InputError
from lensray.io import storage

SECRET = "testing-secret"


def message_of(url: str) -> str:
    with pytest.raises(InputError) as error:
        storage.find_files(url)
    text = str(error.value)
    assert url in text
    assert "\n" not in text
    assert SECRET not in text
    return text


def test_bytes_come_back_as_written(any_url: str):
    url = storage.join(any_url, "runs", "a.bin")
    assert not storage.exists(url)
    storage.write_bytes(url, b"first")
    storage.write_bytes(url, b"second")
    assert storage.read_bytes(url) == b"second"
    assert storage.exists(url)
    assert storage.exists(storage.join(any_url, "runs"))


@pytest.mark.parametrize("name", ["a b", "100%25", "50%", "Γ-lens", "plus+hash#", "q?x"])
def test_names_are_taken_literally(any_url: str, name: str):
    url = storage.join(any_url, name, "x.parquet")
    storage.write_bytes(url, name.encode())
    assert storage.read_bytes(url) == name.encode()
    (entry,) = storage.find_files(any_url)
    assert entry.path == storage.resolve(url)[1]
    assert storage.list_names(*storage.resolve(any_url)) == [name]


def test_file_url_and_home_are_local_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    storage.write_bytes("~/a b.txt", b"x")
    assert storage.read_bytes(f"file://{tmp_path}/a%20b.txt") == b"x"
    assert storage.read_bytes((tmp_path / "a b.txt").as_uri()) == b"x"


def test_relative_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("x/a.parquet", b"x")
    assert [entry.path for entry in storage.find_files("x")] == [str(tmp_path / "x" / "a.parquet")]


def test_find_files_lists_below_the_folder_in_order_without_hidden_names(any_url: str):
    for name in [
        "b.parquet",
        "a/z.parquet",
        "a/c.parquet",
        "_x/d.parquet",
        ".e.parquet",
        "_f.parquet",
        "g.csv",
    ]:
        storage.write_bytes(storage.join(any_url, name), b"123")
    found = storage.find_files(any_url)
    root = storage.resolve(any_url)[1]
    assert [entry.path.removeprefix(root) for entry in found] == [
        "/a/c.parquet",
        "/a/z.parquet",
        "/b.parquet",
    ]
    assert {entry.size for entry in found} == {3}


def test_a_hidden_folder_that_is_named_itself_is_read(any_url: str):
    storage.write_bytes(storage.join(any_url, "_run", "a.parquet"), b"123")
    assert len(storage.find_files(storage.join(any_url, "_run"))) == 1


def test_find_files_takes_a_file_by_its_name(any_url: str):
    url = storage.join(any_url, "survey.pq")
    storage.write_bytes(url, b"1234")
    assert [entry.size for entry in storage.find_files(url)] == [4]


def test_glob_matches_within_a_folder_and_through_folders(any_url: str):
    for name in ["a/1_g.fits", "a/1_r.fits", "b/2_g.fits", "b/c/3_g.fits", "x.txt"]:
        storage.write_bytes(storage.join(any_url, name), b"1")
    root = storage.resolve(any_url)[1]

    def names(pattern: str) -> list[str]:
        return [e.path.removeprefix(root + "/") for e in storage.glob_files(storage.join(any_url, pattern))]

    assert names("*/*_g.fits") == ["a/1_g.fits", "b/2_g.fits"]
    assert names("**/*_g.fits") == ["a/1_g.fits", "b/2_g.fits", "b/c/3_g.fits"]
    assert names("a/1_[gr].fits") == ["a/1_g.fits", "a/1_r.fits"]
    assert names("x.txt") == ["x.txt"]
    with pytest.raises(InputError, match="no file matches"):
        names("*.jpeg")


def test_output_that_raises_leaves_nothing(any_url: str):
    url = storage.join(any_url, "half")
    storage.write_bytes(storage.join(any_url, "other"), b"1")

    def write_half() -> None:
        with storage.atomic_output(url) as file:
            file.write(b"x" * 100_000)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert storage.list_names(*storage.resolve(any_url)) == ["other"]


def test_output_that_raises_leaves_the_old_file(any_url: str):
    url = storage.join(any_url, "file")
    storage.write_bytes(url, b"old")

    def write_half() -> None:
        with storage.atomic_output(url) as file:
            file.write(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert storage.read_bytes(url) == b"old"


def test_files_have_the_permissions_of_the_umask(tmp_path: Path):
    old = os.umask(0o027)
    try:
        storage.write_bytes(str(tmp_path / "a"), b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_move_and_delete_folder(any_url: str):
    storage.write_bytes(storage.join(any_url, "_staging", "a"), b"x")
    storage.move(storage.join(any_url, "_staging", "a"), storage.join(any_url, "a"))
    storage.delete_folder(storage.join(any_url, "_staging"))
    storage.delete_folder(storage.join(any_url, "_staging"))
    assert storage.list_names(*storage.resolve(any_url)) == ["a"]


def test_list_names_of_a_missing_folder_is_empty(any_url: str):
    assert storage.list_names(*storage.resolve(storage.join(any_url, "none"))) == []


@pytest.mark.parametrize("columns", [1, 3000])
def test_footer_is_that_of_the_whole_file(any_url: str, columns: int):
    """3000 columns make a footer that is larger than the first read."""
    table = pa.table({f"c{i}": [1, 2, 3] for i in range(columns)})
    url = storage.join(any_url, "a.parquet")
    with storage.atomic_output(url) as file:
        pq.write_table(table, file)
    (entry,) = storage.find_files(url)
    filesystem, _ = storage.resolve(url)
    footer = storage.read_footer(filesystem, entry.path, entry.size)
    with storage.open_input(url) as source:
        assert footer.metadata.equals(pq.read_metadata(source))
    assert footer.sha256 == storage.read_footer(filesystem, entry.path, entry.size).sha256


def test_footer_hash_tells_files_apart(tmp_path: Path):
    hashes = []
    for values in ([1, 2, 3], [1, 2, 4]):
        path = str(tmp_path / "a.parquet")
        pq.write_table(pa.table({"a": values}), path)
        hashes.append(storage.read_footer(pafs.LocalFileSystem(), path, os.path.getsize(path)).sha256)
    assert hashes[0] != hashes[1]


def damaged_files(tmp_path: Path) -> dict[str, bytes]:
    path = tmp_path / "good.parquet"
    pq.write_table(pa.table({"a": [1, 2, 3]}), path)
    good = path.read_bytes()
    return {
        "empty": b"",
        "short": b"PAR1",
        "text": b"a,b\n" * 100,
        "cut": good[:-20],
        "damaged": good[:-60] + bytes(40) + good[-20:],
        "huge length": good[:-8] + b"\xff\xff\xff\x7fPAR1",
    }


@pytest.mark.parametrize("name", ["empty", "short", "text", "cut", "damaged", "huge length"])
def test_file_that_is_no_parquet_is_named(tmp_path: Path, name: str):
    path = tmp_path / "x.parquet"
    path.write_bytes(damaged_files(tmp_path)[name])
    with pytest.raises(InputError, match=r"x\.parquet") as error:
        storage.read_footer(pafs.LocalFileSystem(), str(path), path.stat().st_size)
    assert "\n" not in str(error.value)


def test_missing_path_is_named(any_url: str):
    url = storage.join(any_url, "none")
    assert "does not exist" in message_of(url)
    with pytest.raises(InputError, match="does not exist"):
        storage.read_bytes(url)


def test_empty_folder_and_folder_without_parquet_are_told_apart(tmp_path: Path):
    assert "empty folder" in message_of(str(tmp_path))
    (tmp_path / "a.csv").write_text("x")
    assert "no .parquet file" in message_of(str(tmp_path))


def test_reading_a_folder_as_a_file_is_answered(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder"):
        storage.read_bytes(str(tmp_path))


def test_writing_below_a_file_is_answered(tmp_path: Path):
    (tmp_path / "a").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        storage.write_bytes(str(tmp_path / "a" / "b"), b"x")


def test_unknown_scheme_is_answered():
    assert "s3://" in message_of("ftp3://host/x")


def test_bucket_must_be_named(s3_url: str):
    assert "names no bucket" in message_of("s3://")


def test_missing_bucket_is_answered(s3_url: str):
    assert "bucket" in message_of("s3://no-such-bucket/x")
    with pytest.raises(InputError, match="bucket"):
        storage.write_bytes("s3://no-such-bucket/x", b"x")


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://no-such-host.invalid"])
def test_wrong_endpoint_is_answered_by_every_function(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, s3_url: str
):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for function in (storage.find_files, storage.read_bytes, storage.exists, storage.glob_files):
        with pytest.raises(InputError, match=f"cannot reach {endpoint} for {s3_url}; check AWS_ENDPOINT_URL"):
            function(s3_url)
    with pytest.raises(InputError, match="cannot reach"):
        storage.write_bytes(s3_url, b"x")


def test_service_endpoint_goes_before_the_general_one(monkeypatch: pytest.MonkeyPatch, s3_url: str):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    storage.write_bytes(s3_url, b"x")
    assert storage.read_bytes(s3_url) == b"x"


class NotS3(http.server.BaseHTTPRequestHandler):
    """A web server that knows nothing of S3."""

    def do_GET(self) -> None:
        self.send_response(418)
        self.end_headers()

    do_HEAD = do_PUT = do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_endpoint_that_is_no_s3_server_is_answered(monkeypatch: pytest.MonkeyPatch, s3_url: str):
    with http.server.HTTPServer(("127.0.0.1", 0), NotS3) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            assert "check that AWS_ENDPOINT_URL is an S3 server" in message_of(s3_url)
        finally:
            server.shutdown()
            thread.join()


def test_wrong_credentials_are_answered(monkeypatch: pytest.MonkeyPatch):
    """This server checks credentials from the first request, and knows none."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        assert "AWS_ACCESS_KEY_ID" in message_of("s3://lensray-test/x")
        with pytest.raises(InputError, match="refuses access"):
            storage.read_bytes("s3://lensray-test/x")
        with pytest.raises(InputError, match="refuses access"):
            storage.write_bytes("s3://lensray-test/x", b"x")
