"""What is done with boxes: started, entered again, moved, saved, cleared away."""
