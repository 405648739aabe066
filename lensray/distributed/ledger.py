"""The ledger: what a scan consists of, and which of its fragments are done.

``ledger/plan.json`` holds the scan's identity and its fingerprint, ``ledger/fragments.parquet`` its
fragments, ``ledger/duplicates.parquet`` the rows whose object_id came before, and
``ledger/done/<fragment>.json`` one marker for each fragment whose scores are complete. Readers trust
only fragments with a marker. A fragment's file depends on the input alone, so that writing it twice
is harmless and a scan can be killed anywhere.
"""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from lensray.distributed.planning import ScanPlan
from lensray.errors import InputError
from lensray.io import storage


class Ledger:
    """The ledger of the scan in the folder `output`."""

    def __init__(self, output: str) -> None:
        self.output = output

    def part_url(self, fragment: int) -> str:
        """Address of the scores of a fragment."""
        return storage.join(self.output, "scores", f"part-{fragment:08d}.parquet")

    def _url(self, *names: str) -> str:
        return storage.join(self.output, "ledger", *names)

    def check(self, plan: ScanPlan) -> bool:
        """Whether this scan was begun here before; nothing is written.

        Raises
        ------
        InputError
            If the folder belongs to another scan: other input, bundle or settings.
        """
        if not storage.exists(self._url("plan.json")):
            if storage.exists(storage.join(self.output, "scores")):
                raise InputError(
                    f"{self.output} holds scores but no ledger, so is no scan of ours; choose another --output"
                )
            return False
        stored = json.loads(storage.read_bytes(self._url("plan.json")))
        if stored.get("fingerprint") == plan.fingerprint:
            return True
        changed = [key for key in plan.identity if stored.get(key) != plan.identity[key]]
        raise InputError(
            f"{self.output} holds another scan (its {', '.join(changed) or 'plan'} differ); "
            "choose another --output, or give the words of that scan"
        )

    def open(self, plan: ScanPlan) -> None:
        """Begin this scan, or go on with it (errors as of `check`)."""
        if not self.check(plan):
            self._write_table(plan.fragments, "fragments.parquet")
            record = {"fingerprint": plan.fingerprint, **plan.identity}
            storage.write_bytes(self._url("plan.json"), json.dumps(record, indent=1).encode())

    def fragments(self) -> pa.Table:
        """All fragments of the scan."""
        with storage.open_input(self._url("fragments.parquet")) as file:
            return pq.read_table(file)

    def done(self) -> set[int]:
        """The fragments whose scores are complete."""
        filesystem, path = storage.resolve(self._url("done"))
        return {
            int(name.removesuffix(".json"))
            for name in storage.list_names(filesystem, path)
            if name.endswith(".json")
        }

    def pending(self) -> pa.Table:
        """The fragments that are still to be scored."""
        fragments = self.fragments()
        done = self.done()
        return fragments.filter(
            pa.array([f not in done for f in fragments["fragment"].to_pylist()], pa.bool_())
        )

    def mark_done(self, fragment: int, summary: dict) -> None:
        """Say that the scores of `fragment` are complete; `summary` is for people who look."""
        storage.write_bytes(self._url("done", f"{fragment:08d}.json"), json.dumps(summary).encode())

    def sessions(self) -> list[dict]:
        """Start, seconds, rows and actors of each session of scoring that came to its end."""
        url = self._url("sessions.json")
        return json.loads(storage.read_bytes(url)) if storage.exists(url) else []

    def add_session(self, session: dict) -> None:
        """Keep how long a session of scoring took."""
        storage.write_bytes(self._url("sessions.json"), json.dumps([*self.sessions(), session]).encode())

    def duplicates(self) -> pa.Table | None:
        """Rows (``row``, counted through the survey) whose object_id came before; None if not yet known."""
        if not storage.exists(self._url("duplicates.parquet")):
            return None
        with storage.open_input(self._url("duplicates.parquet")) as file:
            return pq.read_table(file)

    def write_duplicates(self, rows: pa.Table) -> None:
        """Keep the rows whose object_id came before."""
        self._write_table(rows, "duplicates.parquet")

    def _write_table(self, table: pa.Table, name: str) -> None:
        with storage.atomic_output(self._url(name)) as file:
            pq.write_table(table, file)
