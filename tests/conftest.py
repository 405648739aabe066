"""Fixtures that several test files share: an S3 server on loopback, and the folder of real images."""

import contextlib
import os
import runpy
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as pafs
import pytest

RunJob = Callable[..., tuple[object, list[str]]]
BUCKET = "lensray-test"
JOBS = Path(__file__).parents[1] / "jobs"


@pytest.fixture
def run_job(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunJob:
    """Run a job in this process; returns its exit code and the lines on stderr."""

    def run(job: str, *words: object) -> tuple[object, list[str]]:
        monkeypatch.setattr(sys, "argv", [str(JOBS / job), *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(JOBS / job), run_name="__main__")
        return stop.value.code, capsys.readouterr().err.strip().splitlines()

    return run


@contextlib.contextmanager
def s3_server(**settings: str) -> Iterator[dict[str, str]]:
    """An S3 server (moto's) in its own process; yields the ``AWS_*`` variables to reach it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(
        command, env={**os.environ, **settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for_port(port, server)
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_REGION": "us-east-1",
        }
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def s3_environment() -> Iterator[dict[str, str]]:
    """The ``AWS_*`` variables of an S3 server that has the bucket ``lensray-test``."""
    with s3_server() as environment:
        create_bucket(environment)
        yield environment


def wait_for_port(port: int, server: subprocess.Popen) -> None:
    """Return when something listens on a port of loopback; a server that ended, or 60 s, fail the test."""
    for _ in range(600):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        if server.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"the server does not listen on port {port} (exit code {server.poll()})")


def create_bucket(environment: dict[str, str]) -> None:
    filesystem = pafs.S3FileSystem(
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
        region=environment["AWS_REGION"],
        endpoint_override=environment["AWS_ENDPOINT_URL"],
        allow_bucket_creation=True,
    )
    filesystem.create_dir(BUCKET)


@pytest.fixture
def s3_url(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of the test's own on the S3 server, whose variables are set during the test."""
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "s3"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that is not there yet: once local, once on S3."""
    return str(tmp_path / "folder") if request.param == "local" else request.getfixturevalue("s3_url")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of this machine's own, for the tests of a file, which ends with them."""
    import ray

    os.environ["RAY_ADDRESS"] = "local"
    yield
    ray.shutdown()
    del os.environ["RAY_ADDRESS"]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images that ``LENSRAY_REAL_DATA`` names."""
    folder = os.environ.get("LENSRAY_REAL_DATA")
    if not folder:
        pytest.skip("LENSRAY_REAL_DATA is not set: it names a folder of real images")
    return Path(folder).resolve()
