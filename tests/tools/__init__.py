"""The helpers of ./dev."""
