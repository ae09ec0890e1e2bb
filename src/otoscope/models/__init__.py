"""The patient: models of several families, loaded from anywhere, with named places inside."""
