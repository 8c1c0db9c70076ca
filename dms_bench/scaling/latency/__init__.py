"""Latency as a function of what a network keeps, measured on the device at hand."""
