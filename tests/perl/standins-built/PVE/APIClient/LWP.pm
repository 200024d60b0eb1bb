package PVE::APIClient::LWP;

# Stand-in for a part of PVE outside its storage tree; loaded, never called.

use strict;
use warnings;

1;
