package PVE::RS::TFA;

# Stand-in for a compiled part of PVE that source trees lack; loaded, never called.

use strict;
use warnings;

1;
