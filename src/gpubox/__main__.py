"""`python -m gpubox` is `gpubox`."""

from gpubox.cli import main

main()
