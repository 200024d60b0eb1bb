#!/usr/bin/perl -T

# "path and filesystem_path answer by context: a list (path, vmid, vtype) or a scalar", and a raw
# image's snapshot has a path of its own. Pure string work: nothing here looks at a disk.

use strict;
use warnings;

use Test::More;

use DRBDOCFS2Test;

my $plugin = plugin();
my $scfg = scfg();
my $moved = scfg('content-dirs' => { images => 'vm/disks', iso => 'isos' });
local $PVE::Storage::DRBDOCFS2::Client::SOCKET = '/nonexistent';
local @PVE::Storage::DRBDOCFS2::Client::COMMAND = ('/nonexistent');

my @cases = (
    # volume name, snapshot, path, vmid, vtype
    ['100/vm-100-disk-0.raw', undef, 'images/100/vm-100-disk-0.raw', 100, 'images'],
    ['100/vm-100-disk-0.qcow2', undef, 'images/100/vm-100-disk-0.qcow2', 100, 'images'],
    ['100/base-100-disk-0.raw', undef, 'images/100/base-100-disk-0.raw', 100, 'images'],
    [
        '90/base-90-disk-0.qcow2/100/vm-100-disk-1.qcow2', undef, 'images/100/vm-100-disk-1.qcow2',
        100,
        'images'
    ],
    [
        '100/vm-100-disk-0.raw', 'before', 'images/100/.snapshots/vm-100-disk-0.raw/before.raw',
        100,
        'images'
    ],
    [
        '100/vm-100-disk-0.raw', 'vzdump', 'images/100/.snapshots/vm-100-disk-0.raw/vzdump.raw',
        100,
        'images'
    ],
    ['100/vm-100-disk-0.qcow2', 'before', 'images/100/vm-100-disk-0.qcow2', 100, 'images'],
    ['iso/debian.iso', undef, 'template/iso/debian.iso', undef, 'iso'],
);

for my $case (@cases) {
    my ($volname, $snap, $expected, $vmid, $vtype) = @{$case};
    my $name = $volname . ($snap ? " at $snap" : '');
    is_deeply(
        [$plugin->filesystem_path($scfg, $volname, $snap)],
        ["/mnt/pve/ha/$expected", $vmid, $vtype], "filesystem_path of $name: list"
    );
    is(scalar($plugin->filesystem_path($scfg, $volname, $snap)), "/mnt/pve/ha/$expected", 'scalar');
    is_deeply(
        [$plugin->path($scfg, $volname, 'ha', $snap)],
        ["/mnt/pve/ha/$expected", $vmid, $vtype], "path of $name: list"
    );
    is(scalar($plugin->path($scfg, $volname, 'ha', $snap)), "/mnt/pve/ha/$expected", 'scalar');
    is_deeply(
        [$plugin->map_volume('ha', $scfg, $volname, $snap)], ["/mnt/pve/ha/$expected"],
        'map_volume: the path alone, whatever the context'
    );
}

is(
    scalar($plugin->path($moved, '100/vm-100-disk-0.raw', 'ha', 's1')),
    '/mnt/pve/ha/vm/disks/100/.snapshots/vm-100-disk-0.raw/s1.raw', 'content-dirs move images'
);
is(
    scalar($plugin->path($moved, 'iso/debian.iso', 'ha')), '/mnt/pve/ha/isos/debian.iso',
    'and isos'
);

subtest 'an option meant for other storages does not move a snapshot' => sub {
    my $chain = scfg('snapshot-as-volume-chain' => 1);
    is(
        scalar($plugin->path($chain, '100/vm-100-disk-0.qcow2', 'ha', 's1')),
        '/mnt/pve/ha/images/100/vm-100-disk-0.qcow2', 'snapshot-as-volume-chain'
    );
};

like(
    dies(sub { $plugin->path($scfg, '100/vm-100-disk-0.vmdk', 'ha', 's1') }),
    qr/can't snapshot .*\n\z/, 'vmdk has no snapshots'
);
for my $hostile ('../x', 'a/b', '.hidden', '', "a\n", 'a b') {
    like(
        dies(sub { $plugin->path($scfg, '100/vm-100-disk-0.raw', 'ha', $hostile) }),
        qr/not a snapshot's name/, "no path for the snapshot '" . $hostile =~ s/\n/\\n/r . "'"
    );
}

is($plugin->unmap_volume('ha', $scfg, '100/vm-100-disk-0.raw'), 1, 'unmap_volume');
is(
    $plugin->deactivate_volume('ha', $scfg, '100/vm-100-disk-0.raw', undef, {}), 1,
    'deactivate_volume'
);

done_testing();
