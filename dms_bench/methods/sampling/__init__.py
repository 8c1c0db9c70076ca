"""Methods that sample architectures and judge them."""
