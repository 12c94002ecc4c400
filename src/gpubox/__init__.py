"""gpubox: the right deep-learning container on the right GPU, with one word."""
