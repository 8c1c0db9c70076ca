"""What of a network is searched."""
