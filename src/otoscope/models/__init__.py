"""The patient: models of several families, loaded from anywhere, with named places inside."""

from otoscope.machine import keep_freed_memory

keep_freed_memory()  # before the first tensor of any model
