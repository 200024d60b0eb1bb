"""Who may go on when the mirror breaks: corosync's quorum decides, the guard follows it, DRBD's handler asks the guard."""
