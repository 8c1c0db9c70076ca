"""Cut networks as files that other runtimes open, each checked in its runtime, and what they come to there."""
