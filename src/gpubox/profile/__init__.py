"""What was asked for: configuration files and flags become a Profile."""
