"""Which component did it: change an activation and see what the output does."""
