"""The guard's times, in seconds, as fixed by measurement; timeline.py checks that DRBD's, corosync's and OCFS2's fit them."""

from __future__ import annotations

HOLD_SECONDS = 6.0
"""From the own freeze to the earliest win: by then the other node has missed this one too and reads nothing stale."""
STABLE_SECONDS = 6.0
"""Without an event of corosync before a win. By then the other node has formed its own ring, even if it paused as long as is
forgiven: qnetd has heard both, and has taken the vote back where it prefers the other one."""
PAUSE_SECONDS = 4.0
"""A longer pause may have cost this node its membership unseen: it must be less than token + consensus. It is also less than
an OCFS2 mount takes, so that a guard which looked away for less cannot have missed that the outage it won is over."""
GIVE_WAY_SECONDS = 5.0
"""A node that cannot win resets itself so long after the other has come into its membership, unless DRBD has connected by then:
its connect-int must be less."""
STILL_HERE_SECONDS = 4.0
"""The same where the other has been a member all along, after token + consensus: until then it may be gone and still be listed, and
if it has just come back, DRBD connects first."""
LEAVE_SECONDS = 6.6
"""Token + consensus, where corosync.conf does not tell them."""
STANDALONE_SECONDS = 3.0
"""The same, where the other node has refused the connection."""
TIE_BREAK_SECONDS = 20.0
"""After so long in one membership without a connection the node with the higher id gives way. A node that has found in a
common membership that it cannot win has left by then."""
FRESH_SECONDS = 2.0
"""Corosync must have answered so recently: a stopped one says nothing, and its last word stands."""
LOOKBACK_SECONDS = 30.0
"""A vote lost, or a pause, so shortly before the freeze counts as one of the outage: the other node may have frozen sooner."""
DEADLINE_SECONDS = 300.0
"""After so long a handler is told that nothing was decided, and I/O stays frozen; OCFS2 has reset the node long before."""
