"""Drawing: documents become pages."""
