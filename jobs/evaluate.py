"""Measure a finished scan by a truth table: the figures of the lens finding challenge, and this project's.

python jobs/evaluate.py --scan s3://bucket/run --truth image_catalog.csv
python jobs/evaluate.py --scan run --truth lenses.fits --id-column NAME --label-column IS_LENS --output evaluation
"""

import sys
from dataclasses import dataclass

from lensray import catalogs
from lensray.command_line import run_job
from lensray.truth_table import check_classes, read_truth_table


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Print AUROC, TPR0, TPR10, ranking performance and more of a scan, with their errors."""

    scan: str
    """A scan's output folder, local or s3://; all its fragments must be done."""
    truth: str
    """Table of the truth: CSV, ECSV, FITS, VOTable or Parquet, local or s3://. Those of the Bologna lens finding challenges
    (ID and is_lens; ID, n_source_im, mag_eff and n_pix_source) are known without further words."""
    id_column: str | None = None
    """Column of the table that holds the scan's object_id; by default ID or object_id."""
    label_column: str | None = None
    """Column that says what is a lens: booleans, 0 and 1, or true, false, lens and non-lens; empty where it is not known."""
    output: str | None = None
    """Folder, local or s3://, for evaluation.json, the figures and report.html; by default nothing is written."""


def main(config: EvaluateConfig) -> None:
    """Check the words, then measure, print and write."""
    truth = read_truth_table(config.truth, config.id_column, config.label_column)
    check_classes(truth)
    files = catalogs.finished_score_files(config.scan)

    # Only here, since drawing takes its time to import.
    from lensray.inspection import evaluation_report, scan_evaluation

    if config.output:
        evaluation_report.check_output(config.output)
    evaluation = scan_evaluation.evaluate_scan(config.scan, files, truth)
    print(evaluation_report.summary(evaluation))
    if config.output:
        print(f"report: {evaluation_report.write_evaluation(evaluation, config.output, sys.argv)}")


if __name__ == "__main__":
    run_job(main, EvaluateConfig)
