package PVE::Cluster::IPCConst;

# Stand-in for a generated part of PVE that source trees lack: numbers nobody answers to.

use strict;
use warnings;

use base qw(Exporter);

our @EXPORT; ## no critic (ProhibitAutomaticExportation)

my $number = 0;
for my $name (
    qw(
    GET_FS_VERSION GET_CLUSTER_INFO GET_GUEST_LIST SET_STATUS GET_STATUS GET_CONFIG
    LOG_CLUSTER_MSG GET_CLUSTER_LOG GET_RRD_DUMP GET_GUEST_CONFIG_PROPERTY
    GET_GUEST_CONFIG_PROPERTIES VERIFY_TOKEN
    )
) {
    my $value = ++$number;
    no strict 'refs'; ## no critic (ProhibitNoStrict)
    *{"CFS_IPC_$name"} = sub () { $value };
    push @EXPORT, "CFS_IPC_$name";
}

1;
