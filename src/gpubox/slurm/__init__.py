"""Jobs of Slurm: what one has, and how one is asked for."""
