"""Whole jobs, each one readable file that composes the rooms below."""
