package PVE::Cluster;

# Stand-in: the storage lock ends its holder after 60 s by alarm(), and leaves the error in $@.

use strict;
use warnings;

our $LOCK_SECONDS = 60;
our %VMLIST;

sub get_vmlist {
    return { ids => \%VMLIST };
}

sub cfs_lock_storage {
    my ($storeid, $timeout, $code, @param) = @_;

    my $result = eval {
        local $SIG{ALRM} = sub { die "got lock timeout - aborting command\n" };
        alarm($LOCK_SECONDS);
        my $value = $code->(@param);
        alarm(0);
        $value;
    };
    my $error = $@;
    alarm(0);
    ## no critic (RequireLocalizedPunctuationVars)
    $@ = $error ? "error during cfs-locked 'storage-$storeid' operation: $error" : '';
    return $error ? undef : $result;
}

1;
