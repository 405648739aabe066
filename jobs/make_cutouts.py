"""Turn stamps or mosaics into a cutout survey, the Parquet folder that scan_survey.py reads, or join such surveys.

python jobs/make_cutouts.py --stamps 'DIR/*.fits.gz' --bands i --input-pixel-scale 0.18 --output URL
python jobs/make_cutouts.py --stamps 'DIR/*_{band}.fits' --bands g r i --output URL
python jobs/make_cutouts.py --stamps 'DIR/{band}.fits' --stack --bands g r i --survey des --output URL
python jobs/make_cutouts.py --stamps 'DIR/*.fits' --hdus DES_G DES_R DES_I --bands g r i --output URL
python jobs/make_cutouts.py --images 'URL/{tile}/{band}.fits' --bands g r i --catalog sources.fits --output URL
python jobs/make_cutouts.py --images s3://bucket/coadds --layout hsc_pdr3 --detect --output URL
python jobs/make_cutouts.py --surveys real simulated --output URL      (all columns of both)
python jobs/make_cutouts.py --surveys simulated --output real --append (fitted to real, with its columns)
"""

from lensray.command_line import run_job
from lensray.extraction.config import MadeSurvey, MakeCutoutsConfig
from lensray.extraction.joining import join_surveys
from lensray.extraction.stamps import make_survey


def main(config: MakeCutoutsConfig) -> None:
    """Make the survey and say what is in it."""
    if config.images:
        print(cut_mosaics(config))
        return
    made = join_surveys(config) if config.surveys else make_survey(config)
    print(f"{config.output}: {describe(made)}")
    if made.unreadable:
        print(f"{made.unreadable} have no readable image and are rows without one; {made.first_problem}")
    if made.left_out:
        print(f"columns that were not taken over: {', '.join(made.left_out)}")
    if not made.pixel_scale_known:
        print("pass --input-pixel-scale (or --survey) to store the pixel scale; a scan needs it")


def cut_mosaics(config: MakeCutoutsConfig) -> str:
    """Check everything first, then import ray and cut; says what came of it."""
    from lensray.distributed.extraction_plan import plan_cutouts

    plan = plan_cutouts(config)
    from lensray.distributed.cut_sources import cut_sources

    return cut_sources(config, plan).summary()


def describe(made: MadeSurvey) -> str:
    """What was written, in a line."""
    fmt = made.format
    scale = f"{fmt.pixel_scale_arcsec:.4g} arcsec pixels" if made.pixel_scale_known else "unknown pixel scale"
    shape = "×".join(map(str, fmt.shape))
    return f"{made.rows} cutouts of {shape} {fmt.dtype} ({', '.join(fmt.bands)}; {scale})"


if __name__ == "__main__":
    run_job(main, MakeCutoutsConfig)
