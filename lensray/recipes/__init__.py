"""Named runs: one file a network that ships with LensRay, its docstring with command, duration and result."""
