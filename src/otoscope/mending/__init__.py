"""Repairs with a price tag: edits, changed weights and a loop breaker, made, priced, applied and exported."""
