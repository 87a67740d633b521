"""hftlab: a Jupyter-first research and simulation kernel for high-frequency trading."""
