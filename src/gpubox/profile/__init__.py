"""What was asked for: files and flags become a Profile."""
