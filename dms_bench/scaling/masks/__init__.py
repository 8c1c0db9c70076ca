"""How masks act on a network while it trains."""
