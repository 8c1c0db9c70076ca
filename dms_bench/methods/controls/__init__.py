"""What a search has to beat, and the ceiling."""
