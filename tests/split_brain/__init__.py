"""After a split brain: facts, plan and work, without a cluster."""
