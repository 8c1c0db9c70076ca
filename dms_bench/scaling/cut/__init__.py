"""From a mask to a plain, smaller network."""
