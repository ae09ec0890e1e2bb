"""Learning dictionaries: from a stream of activations to features on disk."""
