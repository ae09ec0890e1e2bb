"""Dictionaries on disk: otoscope's own, circuit-tracer's, Gemma Scope's and SAELens' formats. Nothing is ever unpickled."""
