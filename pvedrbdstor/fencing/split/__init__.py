"""After a split brain: what each side changed, and the way back to one copy without losing the other unseen."""
