"""Methods that remove what matters least by a score of the weights."""
