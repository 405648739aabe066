"""The ledger: what a scan consists of, and which of its fragments are done.

``ledger/plan.json`` holds the scan's identity and its fingerprint, ``ledger/fragments.parquet`` its
fragments, ``ledger/duplicates.parquet`` the rows whose object_id came before, and
``ledger/done/<fragment>.json`` one marker for each fragment whose scores are complete. Readers trust
only fragments with a marker. A fragment's file depends on the input alone (its scores also, in the last bits,
on the kind of machine and the number of threads), so that writing it twice is harmless and a scan can be
killed anywhere.
"""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from lensray.distributed.planning import ScanPlan
from lensray.errors import InputError
from lensray.io import parquet, storage
from lensray.pixels import Status

# Statuses that another try may mend.
RETRIED = frozenset({Status.FAILED, Status.UNREADABLE})


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
            self._check_no_survey()
            return False
        stored = json.loads(storage.read_bytes(self._url("plan.json")))
        if stored.get("fingerprint") == plan.fingerprint:
            return True
        changed = [key for key in plan.identity if stored.get(key) != plan.identity[key]]
        raise InputError(
            f"{self.output} holds another scan (its {', '.join(changed) or 'plan'} differ); "
            "choose another --output, or give the words of that scan"
        )

    def _check_no_survey(self) -> None:
        """Scores among the files of a survey would be read as part of it by the next scan."""
        if not storage.exists(self.output):
            return
        filesystem, path = storage.resolve(self.output)
        if filesystem.get_file_info(path).is_file:
            raise InputError(f"{self.output} is a file; give a folder as --output")
        if any(name.endswith(".parquet") for name in storage.list_names(filesystem, path)):
            raise InputError(f"{self.output} holds Parquet files, perhaps a survey; choose another --output")

    def open(self, plan: ScanPlan) -> None:
        """Begin this scan, or go on with it (errors as of `check`)."""
        if not self.check(plan):
            self._write_table(plan.fragments, "fragments.parquet")
            record = {"fingerprint": plan.fingerprint, **plan.identity}
            storage.write_bytes(self._url("plan.json"), json.dumps(record, indent=1).encode())

    def fragments(self) -> pa.Table:
        """All fragments of the scan."""
        return parquet.read_table(self._url("fragments.parquet"))

    def done(self) -> set[int]:
        """The fragments whose scores are complete."""
        return self._markers("done")

    def pending(self) -> pa.Table:
        """The fragments that are still to be scored, and those worth another try."""
        fragments = self.fragments()
        finished = self.done() - self._markers("retry")
        keep = [number not in finished for number in fragments["fragment"].to_pylist()]
        return fragments.filter(pa.array(keep, pa.bool_()))

    def mark_done(self, fragment: int, summary: dict) -> None:
        """Say that the scores of `fragment` are complete; `summary` is for people who look.

        Rows that failed or could not be read count as done for this scan; the next one of the same words
        tries their fragment again.
        """
        name = f"{fragment:08d}.json"
        text = json.dumps(summary).encode()
        if RETRIED & set(summary["statuses"]):
            storage.write_bytes(self._url("retry", name), text)
        else:
            storage.delete_file(self._url("retry", name))
        storage.write_bytes(self._url("done", name), text)

    def _markers(self, kind: str) -> set[int]:
        names = storage.list_names(*storage.resolve(self._url(kind)))
        return {int(name.removesuffix(".json")) for name in names if name.endswith(".json")}

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
        return parquet.read_table(self._url("duplicates.parquet"))

    def write_duplicates(self, rows: pa.Table) -> None:
        """Keep the rows whose object_id came before."""
        self._write_table(rows, "duplicates.parquet")

    def _write_table(self, table: pa.Table, name: str) -> None:
        with storage.atomic_output(self._url(name)) as file:
            pq.write_table(table, file)
