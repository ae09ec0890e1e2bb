"""Linear probes: what can be read off a layer with a hyperplane, and how far that is above the controls."""
