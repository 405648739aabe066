"""Turn stamps into a cutout survey: the Parquet folder that scan_survey.py reads.

python jobs/make_cutouts.py --stamps 'DIR/*.fits.gz' --bands i --input-pixel-scale 0.18 --output URL
python jobs/make_cutouts.py --stamps 'DIR/*_{band}.fits' --bands g r i --output URL
python jobs/make_cutouts.py --stamps 'DIR/{band}.fits' --stack --bands g r i --survey des --output URL
python jobs/make_cutouts.py --stamps 'DIR/*.fits' --hdus DES_G DES_R DES_I --bands g r i --output URL
"""

from lensray.command_line import run_job
from lensray.extraction.stamps import StampsConfig, make_survey


def main(config: StampsConfig) -> None:
    """Make the survey and say what is in it."""
    made = make_survey(config)
    fmt = made.format
    scale = f"{fmt.pixel_scale_arcsec:.4g} arcsec pixels" if made.pixel_scale_known else "unknown pixel scale"
    print(
        f"{config.output}: {made.rows} cutouts of {'×'.join(map(str, fmt.shape))} {fmt.dtype} "
        f"({', '.join(fmt.bands)}; {scale})"
    )
    if made.unreadable:
        print(
            f"{made.unreadable} stamps could not be read and are rows without an image; {made.first_problem}"
        )
    if not made.pixel_scale_known:
        print("pass --input-pixel-scale (or --survey) to store the pixel scale; a scan needs it")


if __name__ == "__main__":
    run_job(main, StampsConfig)
