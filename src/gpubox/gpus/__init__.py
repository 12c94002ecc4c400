"""Which GPUs there are, who has them, and who gets those that are free."""
