"""Warning while a model writes: risk that a text is invented, loops or is badly wrong, from what goes on inside."""
