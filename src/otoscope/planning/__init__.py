"""What a command takes before it starts: time and memory, from shapes alone."""
