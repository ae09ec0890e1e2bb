"""The data contract of everything that can be shown; knows nothing of how it is drawn."""
