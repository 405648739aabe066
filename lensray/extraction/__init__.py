"""From the files that surveys ship to a cutout survey."""
