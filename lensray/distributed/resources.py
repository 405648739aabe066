"""The cluster: connecting to it, and how many scoring actors fit on it.

One thread an actor and one actor a core: on two cores, two actors of one thread scored 521 images/s
where one of two threads scored 457 and two of two threads 56 (oversubscribed).
"""

import logging
import os
import socket
import warnings
from dataclasses import dataclass

import ray
from ray._private.utils import read_ray_address

from lensray.errors import InputError

log = logging.getLogger(__name__)

# Logical CPUs a physical one on a local Ray: scoring actors claim one each, readers and writers the rest.
LOCAL_OVERCOMMIT = 2


def connect() -> None:
    """Connect to the cluster that this job was submitted to, or start Ray on this machine.

    With ``RAY_ADDRESS`` set (as ``ray job submit`` does) that cluster is used; otherwise a cluster
    that runs on this machine, if there is one; otherwise a local Ray that ends with the process.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        return
    address = _cluster_address()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        if address:
            ray.init(address=address, logging_level=logging.WARNING)
        else:
            ray.init(
                address="local",
                num_cpus=LOCAL_OVERCOMMIT * cores(),
                include_dashboard=False,
                logging_level=logging.ERROR,
            )


def _cluster_address() -> str | None:
    """Address of the cluster to connect to; None for a local Ray.

    Whether something listens is tried first: a head that was killed leaves its address behind on its
    machine, and Ray itself tries for minutes to reach it.
    """
    asked = os.environ.get("RAY_ADDRESS")
    if asked == "local":
        return None
    address = read_ray_address() if asked in (None, "", "auto") else asked
    if address and ("://" in address or _listens(address)):
        return address
    if asked:
        raise InputError(f"no Ray cluster answers at RAY_ADDRESS={asked}; unset it to run on this machine")
    return None


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except (OSError, ValueError):
        return False


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """The scoring actors of a scan."""

    size: int
    """Number of actors."""
    num_cpus: float
    """CPUs that each claims."""
    num_gpus: float
    """GPUs that each claims."""
    threads: int
    """Threads that each computes with."""


def scoring_pool(workers: int | None, gpus_per_worker: float | None) -> Pool:
    """Actors that fit the cluster as it is now, or as many as asked for (an autoscaler then adds nodes).

    Raises
    ------
    InputError
        If GPUs are asked for where the cluster has none, and no number of workers is given.
    """
    total = ray.cluster_resources()
    gpus = total.get("GPU", 0.0)
    each = gpus_per_worker if gpus_per_worker is not None else (1.0 if gpus else 0.0)
    if each:
        if workers is None and gpus < each:
            raise InputError(
                f"--gpus-per-worker {each:g}, but the cluster has {gpus:g} GPUs now; "
                "pass --workers to make an autoscaling cluster add them, or --gpus-per-worker 0"
            )
        return Pool(size=workers or int(gpus // each), num_cpus=1, num_gpus=each, threads=1)
    cpus = int(total.get("CPU", 1))
    if is_local():
        size = workers or cores()
        return Pool(size=size, num_cpus=min(1.0, cores() / size), num_gpus=0, threads=max(1, cores() // size))
    # On a cluster one CPU in eight is left for readers and writers.
    return Pool(size=workers or max(1, cpus - max(1, cpus // 8)), num_cpus=1, num_gpus=0, threads=1)


def is_local() -> bool:
    """Whether this is the local Ray that `connect` started, with its logical CPUs."""
    cpus = int(ray.cluster_resources().get("CPU", 1))
    return len(ray.nodes()) == 1 and cpus == LOCAL_OVERCOMMIT * cores()
