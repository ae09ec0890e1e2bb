"""Claims about speed, memory and parity, each measured by one file against a peer or a limit, side by side in one run."""
