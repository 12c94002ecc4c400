"""Which images there are, whether this machine runs them, and how they are pulled or built."""
