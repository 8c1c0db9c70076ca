"""One trial, from its specification to what is recorded of it; knows nothing of Ray."""
