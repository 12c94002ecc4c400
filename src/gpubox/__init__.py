"""gpubox: the right deep-learning container on the right GPU, with one word."""

__version__ = "0.1.0"
