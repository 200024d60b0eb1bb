package PVE::INotify;

# Stand-in: the node's name.

use strict;
use warnings;

use POSIX ();

our $NODENAME;

sub nodename {
    return $NODENAME // (split(/[.]/, (POSIX::uname())[1]))[0];
}

1;
