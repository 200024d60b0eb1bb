"""Whether what is acknowledged is where it should be: writes of our own followed to the other node and its disk (docs/verify.md)."""
