package PVE::Storage::DRBDOCFS2::Section;

# What is checked of a section of storage.cfg when a user adds or changes it; what a die here says is
# shown to that user. Parsing stays as lenient as PVE's own: a section that does not parse is lost.

use strict;
use warnings;

# Before a storage is added. Dies with what to do.
sub check_new {
    my ($storeid, $scfg) = @_;

    demand_resource($storeid, $scfg);
    _refuse_volume_chain($storeid, $scfg);
    _refuse_shared_mirror($storeid, $scfg);
    return;
}

# Before the options in $update are set and those in $delete removed.
sub check_update {
    my ($storeid, $scfg, $update, $delete) = @_;

    my @delete = @{ $delete // [] };
    my %after = (%{$scfg}, %{$update});
    delete @after{@delete};

    # A section that never named one, or a bad one, may still be changed otherwise, disabled for one.
    my $renamed = _name(\%after) ne _name($scfg);
    demand_resource($storeid, \%after)
        if $renamed || grep { $_ eq 'drbdocfs2-resource' } @delete;
    _refuse_volume_chain($storeid, $update);
    # The GUI sends all options, also those that stay: an old conflict is no reason to refuse another change.
    _refuse_shared_mirror($storeid, \%after) if _place($scfg) ne _place(\%after);
    return;
}

# Where a section says that its mirror is: what a conflict with another section comes of.
sub _place {
    my ($scfg) = @_;

    my $nodes = _nodes($scfg) // { '' => 1 };
    return join("\n", _device($scfg) // '', sort grep { $nodes->{$_} } keys %{$nodes});
}

sub _name {
    my ($scfg) = @_;

    return $scfg->{'drbdocfs2-resource'} // '';
}

# Dies where there is none, or one of a name with which a command would mean more than this mirror.
sub demand_resource {
    my ($storeid, $scfg) = @_;

    my $resource = _name($scfg);
    die "storage '$storeid' needs to know the DRBD resource it lies on: fill in its name,"
        . " with pvesm give --drbdocfs2-resource NAME ('drbdadm sh-resources' lists them)\n"
        if $resource eq '';
    die "storage '$storeid': '$resource' is a name that DRBD's programs take for something else,"
        . " 'all' for every resource there is, a number for a device. Give the resource another name\n"
        if $resource =~ /\A(?:all|[0-9]+)\z/;
    return;
}

# Whether PVE uses the storage on this node.
sub is_used_here {
    my ($scfg) = @_;

    return 0 if $scfg->{disable};
    my $nodes = _nodes($scfg) or return 1;
    my $here = eval { require PVE::INotify; PVE::INotify::nodename() } // '';
    return $nodes->{$here} ? 1 : 0;
}

sub _refuse_volume_chain {
    my ($storeid, $options) = @_;

    die "storage '$storeid': snapshot-as-volume-chain is not for storages of type drbdocfs2, which"
        . " have snapshots of raw and qcow2 images anyway. Leave that option out\n"
        if $options->{'snapshot-as-volume-chain'};
    return;
}

# Two storages on one mirror would give out the same disk names twice. The same names on nodes that
# have nothing to do with each other are different mirrors.
sub _refuse_shared_mirror {
    my ($storeid, $scfg) = @_;

    my $ids = eval { require PVE::Storage; PVE::Storage::config()->{ids} } // {};
    for my $other (sort keys %{$ids}) {
        my $section = $ids->{$other} // {};
        next if $other eq $storeid || ($section->{type} // '') ne 'drbdocfs2';
        next if !_share_a_node($scfg, $section);
        my $shared = $section->{path} eq ($scfg->{path} // '') ? $section->{path} : undef;
        $shared //= _device($section) if (_device($section) // '') eq (_device($scfg) // '');
        die "storage '$storeid': storage '$other' already lies on $shared."
            . " Use that one, or another path and resource\n"
            if defined($shared);
    }
    return;
}

# Nothing where the section does not name it.
sub _device {
    my ($scfg) = @_;

    my $resource = _name($scfg);
    return if $resource eq '';
    my $volume = $scfg->{'drbdocfs2-volume'} || 0;
    return "DRBD resource '$resource' volume $volume";
}

sub _share_a_node {
    my ($one, $other) = @_;

    my ($left, $right) = (_nodes($one), _nodes($other));
    return 1 if !$left || !$right;
    return scalar(grep { $right->{$_} } keys %{$left});
}

# The nodes of a section as a hash, whatever PVE hands over; nothing where all nodes are meant. The
# GUI's Edit always sends the nodes, and 'all' as an empty list.
sub _nodes {
    my ($scfg) = @_;

    my $nodes = $scfg->{nodes} || {};
    $nodes = { map { $_ => 1 } split(/[\s,;]+/, $nodes) } if !ref($nodes);
    return %{$nodes} ? $nodes : undef;
}

1;
