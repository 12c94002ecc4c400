"""The program: `gpubox`, or `python -m gpubox`."""

import gc

# Imported modules live to the end; searching them for garbage would take a tenth of a short run.
gc.set_threshold(100_000)

from gpubox.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
