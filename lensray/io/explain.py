"""What storage systems say when they fail, in one line that says what to do."""

import contextlib
import os
from collections.abc import Iterator

import pyarrow as pa

from lensray.errors import InputError, LensRayError

_REFUSED = (
    "ACCESS_DENIED",
    "SIGNATURE_DOES_NOT_MATCH",
    "INVALID_SIGNATURE",
    "INVALID_ACCESS_KEY",
    "INVALID_CLIENT_TOKEN",
    "TOKEN_EXPIRED",
    "ExpiredToken",
    "CREDENTIALS",
    "status 401",
    "status 403",
)
_UNREACHABLE = ("NETWORK_CONNECTION", "curlCode")
_NO_BUCKET = ("NO_SUCH_BUCKET", "NoSuchBucket", "bucket does not exist")


@contextlib.contextmanager
def explained(url: str, otherwise: type[LensRayError]) -> Iterator[None]:
    """Turn what a storage system raises into one line about `url`.

    What the user can mend is an `InputError`; what may pass (connection lost, disk full) is `otherwise`.
    """
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        kind, message = _explain(url, error)
        raise (kind or otherwise)(message) from error


def _explain(url: str, error: Exception) -> tuple[type[LensRayError] | None, str]:
    local = _explain_local(url, error)
    if local:
        return InputError, local
    if is_unreachable(error):
        return None, f"cannot reach {endpoint()} for {url}; check AWS_ENDPOINT_URL and the network"
    if _mentions(error, _NO_BUCKET):
        return InputError, no_bucket(url)
    if is_refused(error):
        return InputError, (
            f"{endpoint()} refuses access to {url}; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (and "
            "AWS_SESSION_TOKEN, AWS_PROFILE), or set AWS_NO_SIGN_REQUEST=1 for public data"
        )
    if url.startswith(("s3://", "s3a://")):
        hint = "check that AWS_ENDPOINT_URL is an S3 server, and AWS_REGION"
        return None, f"{endpoint()} gave no S3 answer for {url} ({first_line(error)}); {hint}"
    return None, f"{url} cannot be used: {first_line(error)}"


def _explain_local(url: str, error: Exception) -> str | None:
    if isinstance(error, FileNotFoundError):
        return f"{url} does not exist; check the path"
    if isinstance(error, IsADirectoryError) or _mentions(error, ("is a directory",)):
        return f"{url} is a folder; give a file"
    if isinstance(error, PermissionError):
        return f"no permission for {url}; check its owner and mode"
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{url} lies below something that is a file; choose another path"
    return None


def is_unreachable(error: Exception) -> bool:
    """Whether no server answered."""
    return _mentions(error, _UNREACHABLE)


def is_refused(error: Exception) -> bool:
    """Whether the server did not accept the credentials, or they do not allow this."""
    return _mentions(error, _REFUSED)


def _mentions(error: Exception, words: tuple[str, ...]) -> bool:
    text = str(error).lower()
    return any(word.lower() in text for word in words)


def no_bucket(url: str) -> str:
    """The line about a bucket that does not exist."""
    return f"the bucket of {url} does not exist on {endpoint()}; check its name and AWS_ENDPOINT_URL"


def endpoint() -> str:
    """The S3 server in use, for people."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "Amazon S3"


def first_line(error: Exception) -> str:
    """The start of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
