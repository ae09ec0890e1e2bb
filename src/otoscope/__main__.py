"""`python -m otoscope`."""

from otoscope.cli.main import run

if __name__ == "__main__":
    run()
