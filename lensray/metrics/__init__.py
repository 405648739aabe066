"""How well a scan ranks the lenses that are known: ranking and classification metrics.

`ranking` holds the thesis' measures (tracer rank curve, ranking performance, ordinality), `classification`
the field's (ROC, AUROC, TPR0, TPR10, completeness, contamination, purity), `counts` what makes both exact
without a sort of the survey, `truth` the streaming accumulators that a scan feeds, `scan_metrics` all metrics of a scan. NumPy, SciPy and
scikit-learn alone.
"""
