"""The program: `gpubox`, or `python -m gpubox`."""

import gc

# What is imported stays to the end: looking through it for garbage takes a tenth of a short run.
gc.set_threshold(100_000)

from gpubox.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
