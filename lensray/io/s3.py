"""The S3 client, made from the usual ``AWS_*`` variables."""

import os
from functools import lru_cache

import pyarrow.fs as pafs

from lensray.errors import InputError
from lensray.io.explain import explained, is_refused

CONNECT_TIMEOUT_S = 3
REQUEST_TIMEOUT_S = 60
# A wrong endpoint must be answered in seconds; a long scan must outlive a busy server.
PROBE_ATTEMPTS = 3
ATTEMPTS = 8

_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_CA_BUNDLE",
    "AWS_NO_SIGN_REQUEST",
)

_Environment = tuple[tuple[str, str], ...]


def s3_filesystem(url: str) -> tuple[pafs.FileSystem, str]:
    """Client and path of an ``s3://`` address.

    Raises
    ------
    InputError
        If the address names no bucket, or the server does not answer.
    """
    path = url.partition("://")[2].strip("/")
    if not path:
        raise InputError(f"{url} names no bucket; write s3://bucket/folder")
    bucket = path.split("/")[0]
    environment = tuple((name, os.environ.get(name, "")) for name in _VARIABLES)
    with explained(url, InputError):
        _check_reachable(bucket, environment)
        return _client(bucket, environment, ATTEMPTS), path


@lru_cache(maxsize=32)
def _check_reachable(bucket: str, environment: _Environment) -> None:
    """Ask for the bucket with few retries, once; many may not ask for it but may read its files."""
    try:
        _client(bucket, environment, PROBE_ATTEMPTS).get_file_info(bucket)
    except OSError as error:
        if not is_refused(error):
            raise


@lru_cache(maxsize=64)
def _client(bucket: str, environment: _Environment, attempts: int) -> pafs.S3FileSystem:
    """Cached by the variables, so that a changed environment counts."""
    settings = dict(environment)
    endpoint = settings["AWS_ENDPOINT_URL_S3"] or settings["AWS_ENDPOINT_URL"]
    region = settings["AWS_REGION"] or settings["AWS_DEFAULT_REGION"]
    scheme, separator, host = endpoint.partition("://")
    if not region:
        region = "us-east-1" if endpoint else pafs.resolve_s3_region(bucket)
    return pafs.S3FileSystem(
        anonymous=settings["AWS_NO_SIGN_REQUEST"].lower() in ("1", "true", "yes"),
        region=region,
        scheme=scheme if separator else "https",
        endpoint_override=(host if separator else endpoint).rstrip("/") or None,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        tls_ca_file_path=settings["AWS_CA_BUNDLE"] or None,
    )
