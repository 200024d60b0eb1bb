"""From two bare servers to a healthy storage: what there is (facts), what would be done (plan), and doing it (apply)."""
