"""hftlab: a Jupyter-first research and simulation kernel for high-frequency trading."""

__version__ = "0.1.0"
