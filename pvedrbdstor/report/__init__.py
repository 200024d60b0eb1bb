"""One archive for a support request: what the doctor saw, configurations, states and logs of both nodes, secrets left out (docs/doctor.md)."""
