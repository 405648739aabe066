"""Look objects up in a scan: rank, score and status by object_id.

python jobs/find_objects.py --run runs/demo --object-ids 17 4711
"""

from dataclasses import dataclass

from lensray.catalogs import find_objects
from lensray.command_line import run_job


@dataclass(frozen=True, kw_only=True, slots=True)
class FindConfig:
    """Print what a scan says of some objects, as CSV."""

    run: str
    """A scan's output folder, local or s3://."""
    object_ids: tuple[str, ...]
    """Ids of the objects."""


def main(config: FindConfig) -> None:
    """Look up, and print a line an object."""
    print(find_objects(config.run, config.object_ids).to_pandas().to_csv(index=False), end="")


if __name__ == "__main__":
    run_job(main, FindConfig)
