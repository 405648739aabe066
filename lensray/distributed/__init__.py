"""LensRay on Ray: the only place that imports ray.

`planning` and `ledger` need no ray, so that a command checks its input before the heavy imports;
`scan` is the chain; `stages` are its plain callables; `finish` ranks, measures and reports.
"""
