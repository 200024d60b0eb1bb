#!/usr/bin/perl -T

# PVE::Storage's own functions on a storage of this type: what they ask the plugin for, in which
# order, and what their callers get.

use strict;
use warnings;

use Test::More;

use DRBDOCFS2Test;

# PVE runs uevent checks and a ticket system around these; none of it is in a test's way.
my $raw = '100/vm-100-disk-0.raw';
my $cfg = { ids => { ha => scfg() } };

sub methods {
    my ($backend) = @_;
    return [map { $_->{method} } $backend->requests()];
}

subtest 'vdisk_alloc' => sub {
    my $backend = backend(alloc_image => $raw, '*' => undef);
    my $umask = umask();
    is(PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'raw', undef, 4), "ha:$raw", 'a volume ID');
    is_deeply(methods($backend), [qw(activate_storage alloc_image)], 'activated before');
    is(umask(), $umask, 'umask as before');
    is(PVE::Storage::vdisk_alloc($cfg, 'ha', 100, undef, undef, 4), "ha:$raw", 'without a format');
    is(($backend->requests())[1]->{params}->{format}, 'raw', 'it is raw');
};

subtest 'vdisk_free' => sub {
    my $backend = backend('*' => undef);
    PVE::Storage::vdisk_free($cfg, "ha:$raw");
    is_deeply(
        methods($backend), [qw(activate_storage free_image)],
        'no listing of the whole storage'
    );
};

subtest 'vdisk_list' => sub {
    my @images =
        map { { volid => "ha:100/vm-100-disk-$_.raw", format => 'raw', size => 1, vmid => 100 } } 2,
        0, 1;
    my $backend = backend(list_images => \@images, '*' => undef);
    my $list = PVE::Storage::vdisk_list($cfg, 'ha');
    is_deeply(
        [map { $_->{volid} } @{ $list->{ha} }], [map { "ha:100/vm-100-disk-$_.raw" } 0 .. 2],
        'sorted'
    );
};

subtest 'vdisk_clone, vdisk_create_base, rename_volume' => sub {
    my $backend = backend(
        clone_image => '101/vm-101-disk-0.raw',
        create_base => '100/base-100-disk-0.raw',
        rename_volume => '101/vm-101-disk-1.raw',
        '*' => undef,
    );
    is(PVE::Storage::vdisk_clone($cfg, "ha:$raw", 101, 's1'), 'ha:101/vm-101-disk-0.raw', 'clone');
    is(PVE::Storage::vdisk_create_base($cfg, "ha:$raw"), 'ha:100/base-100-disk-0.raw', 'template');
    is(PVE::Storage::rename_volume($cfg, "ha:$raw", 101), 'ha:101/vm-101-disk-1.raw', 'rename');
    $backend->requests();
    PVE::Storage::rename_volume($cfg, "ha:$raw", undef, 'vm-100-disk-3.raw');
    is(($backend->requests())[1]->{params}->{target_vmid}, 100, 'without a target VMID: its own');
};

subtest 'the next free name, for callers that want it' => sub {
    my $backend = backend(
        list_images => [
            map { { volid => "ha:100/$_", format => 'raw', size => 1, vmid => 100 } }
                qw(base-100-disk-0.raw vm-100-disk-1.raw)
        ],
    );
    is(
        plugin()->find_free_diskname('ha', $cfg->{ids}->{ha}, 100, 'raw', 1), 'vm-100-disk-2.raw',
        'is free'
    );
};

subtest 'an error reaches the caller, from inside the cluster lock too' => sub {
    my $backend = backend(
        alloc_image => DRBDOCFS2Test::error(43, 'StorageFull', "Storage 'ha' is full."),
        '*' => undef,
    );
    like(
        dies(sub { PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'raw', undef, 4) }),
        qr/Storage 'ha' is full\.\n\z/, 'verbatim'
    );
    $backend = backend('*' => DRBDOCFS2Test::error(40, 'NotMounted', 'Nothing is mounted.'));
    like(
        dies(sub { PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'raw', undef, 4) }),
        qr/Nothing is mounted\.\n\z/, 'of the activation'
    );
    is_deeply(methods($backend), ['activate_storage'], 'after which nothing more is asked');
};

subtest 'snapshots' => sub {
    my $backend = backend(volume_snapshot_info => {}, '*' => undef);
    PVE::Storage::volume_snapshot($cfg, "ha:$raw", 's1');
    PVE::Storage::volume_snapshot_rollback($cfg, "ha:$raw", 's1');
    PVE::Storage::volume_snapshot_delete($cfg, "ha:$raw", 's1', 1);
    my @methods = grep { $_ ne 'volume_rollback_is_possible' } @{ methods($backend) };
    is_deeply(
        \@methods, [qw(volume_snapshot volume_snapshot_rollback volume_snapshot_delete)],
        'in order'
    );
    is(
        PVE::Storage::volume_has_feature($cfg, 'snapshot', "ha:$raw", undef, 1), 1,
        'of a running guest'
    );
};

subtest 'activate_volumes, resize, path' => sub {
    my $backend = backend('*' => undef);
    PVE::Storage::activate_volumes($cfg, ["ha:$raw"]);
    is_deeply(methods($backend), [qw(activate_storage activate_volume)], 'before a guest starts');
    PVE::Storage::volume_resize($cfg, "ha:$raw", 8192, 0);
    is(($backend->requests())[0]->{params}->{size}, 8192, 'bytes');
    is_deeply(
        [PVE::Storage::path($cfg, "ha:$raw")], ["/mnt/pve/ha/images/$raw", 100, 'images'],
        'path'
    );
};

done_testing();
