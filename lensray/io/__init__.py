"""Reading and writing: storage addresses, FITS, HDF5 and picture files, and Arrow columns of images."""
