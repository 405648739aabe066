"""Fuse trained bundles into a committee, one bundle whose scores are learned from theirs and calibrated.

python jobs/fuse_committee.py --bundles a.safetensors b.safetensors --cutouts labelled --output committee.safetensors
"""

from lensray.command_line import run_job
from lensray.recipes.fuse import FuseConfig, fuse


def main(config: FuseConfig) -> None:
    """Fuse, and say what it gains over the plain mean."""
    print(fuse(config))


if __name__ == "__main__":
    run_job(main, FuseConfig)
