package PVE::JSONSchema;

# Stand-in: the check of a storage's name.

use strict;
use warnings;

sub parse_storage_id {
    my ($storeid) = @_;
    return $storeid if $storeid =~ m/^[a-z][a-z0-9\-_.]*[a-z0-9]$/i;
    die "storage ID '$storeid' contains illegal characters\n";
}

1;
