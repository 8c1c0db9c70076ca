"""Methods that choose among a few sizes of every unit: exactly, by evolution, or step by step."""
