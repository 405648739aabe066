"""LensRay finds strong gravitational lenses, and other rare objects, in survey imaging.

The loop, and where each station of it lives::

    survey.py              what a survey is: bands, pixel scale, zero points, PSF, noise
    io/, cutouts.py        cutout surveys in Parquet, on disk or S3, and the checks of their pixels
    simulation/            lenses and the objects that are mistaken for them
    extraction/            stamps and mosaics to cutouts
    normalization.py       pixels to a network's input
    models/, bundle.py     networks, and the one file that holds a trained one
    training/, recipes/    how a network is trained, and the named runs
    scoring.py             a bundle applied to a table of cutouts
    distributed/           the same on a Ray cluster: the scan and its ledger (the only place with ray)
    metrics/, catalogs.py  how good a ranking is; the ranked candidates
    selection.py           how probable it is that a lens is found, as a function of its parameters
    inspection/            colour composites, figures, the report

Imports go one way, from `distributed` down to `survey`; see ``docs/design.md``.
"""

__version__ = "0.1.0"
