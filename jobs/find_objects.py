"""Look objects up in a scan: rank, score and status by object_id.

python jobs/find_objects.py --run runs/demo --object-ids 17 4711
"""

import io
from dataclasses import dataclass

from pyarrow import csv

from lensray.catalogs import find_objects
from lensray.command_line import run_job
from lensray.errors import InputError


@dataclass(frozen=True, kw_only=True, slots=True)
class FindConfig:
    """Print what a scan says of some objects, as CSV."""

    run: str
    """A scan's output folder, local or s3://."""
    object_ids: tuple[str, ...]
    """Ids of the objects."""


def main(config: FindConfig) -> None:
    """Look up, and print a line an object."""
    if not config.object_ids:
        raise InputError("--object-ids is empty; give at least one id")
    text = io.BytesIO()
    csv.write_csv(find_objects(config.run, config.object_ids), text, csv.WriteOptions(quoting_style="needed"))
    print(text.getvalue().decode(), end="")


if __name__ == "__main__":
    run_job(main, FindConfig)
