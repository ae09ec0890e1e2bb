"""What each layer knows: its residual stream read as if it were the last."""
