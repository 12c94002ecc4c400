"""What this machine says of the caller, their files, its processes and engines."""
