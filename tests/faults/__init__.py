"""A campaign of faults: `make faults`, or `python -m tests.faults --help`."""
