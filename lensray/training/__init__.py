"""How a network is trained: what it is shown (`sampling`), what is minimized (`losses`), the steps (`steps`)."""
