"""LensRay on Ray: the only place that imports ray.

`planning` and `ledger` need no ray, so that a command checks its input before the heavy imports;
`scan` is the chain; `stages` are its plain callables; `finish` ranks, measures and reports.

Importing it sets what Ray shows of its workers' words, unless the environment says otherwise already; Ray reads it
when it is imported. All of it stays in Ray's log files.
"""

import os

_SAID_BY_RAY = "|".join(
    (
        "execution finished in",
        "Progress bars disabled",
        "Reporting training result",
        "RayDeprecationWarning",
        r"^  self\.exclude_resources = ",
        r"core_worker\.cc:",
        r"gcs_actor_scheduler\.cc:",
        r"mutex\.cc : \d+\] RAW: Lock blocking",
    )
)
"""Lines of Ray's own in the workers that tell the user nothing; their warnings and errors are shown."""

os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _SAID_BY_RAY)
# It tells workers of nodes that are about to go; checkpoints are written every epoch anyhow.
os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
