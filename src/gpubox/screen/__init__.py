"""What the person sees, and the keyboard."""
