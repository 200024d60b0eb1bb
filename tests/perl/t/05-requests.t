#!/usr/bin/perl -T

# What goes over the wire for each method (docs/architecture.md, "The wire"), and what comes of the
# answer. Mind PVE's two argument orders: (storeid, scfg) here, (scfg, storeid) there.

use strict;
use warnings;

use Test::More;

use Scalar::Util qw(tainted);

use DRBDOCFS2Test;

my $plugin = plugin();
my $scfg = scfg();
my $raw = '100/vm-100-disk-0.raw';
my $qcow2 = '100/vm-100-disk-0.qcow2';
my $storage = {
    id => 'ha',
    path => '/mnt/pve/ha',
    resource => 'r0',
    volume => 0,
    uuid => undef,
    images_dir => 'images',
    preallocation => undef,
};

# Call $code with a backend that answers $answer; compare the one request and the result.
sub asks {
    my ($name, $code, $method, $params, $answer, $expected) = @_;
    subtest $name => sub {
        my $backend = backend($method => $answer);
        my @result = $code->();
        my @requests = $backend->requests();
        is(scalar(@requests), 1, 'one request');
        is($requests[0]->{jsonrpc}, '2.0', 'JSON-RPC 2.0');
        is($requests[0]->{method}, $method, $method);
        my %got = %{ $requests[0]->{params} };
        my $timeout = delete $got{timeout};
        cmp_ok($timeout, '>', 0, 'with a deadline');
        is_deeply(delete $got{storage}, $storage, 'names the storage');
        is_deeply(\%got, $params, 'parameters');
        is_deeply(\@result, $expected, 'result');
        ok(!tainted($result[0]), 'which may name a file under perl -T') if defined($result[0]);
        return $timeout;
    };
    return;
}

asks(
    'activate_storage', sub { $plugin->activate_storage('ha', $scfg, {}) },
    'activate_storage', { content_dirs => [qw(dump images)] }, undef, []
);
asks(
    'status', sub { $plugin->status('ha', $scfg, {}) },
    'status', {}, { total => 100, avail => 60, used => 40, active => JSON::true }, [100, 60, 40, 1]
);
asks(
    'get_identity', sub { $plugin->get_identity($scfg, 'ha') },
    'get_identity', {}, 'A' x 32, ['A' x 32]
);
asks(
    'alloc_image', sub { $plugin->alloc_image('ha', $scfg, '100', 'raw', undef, '33554432') },
    'alloc_image', { vmid => 100, format => 'raw', name => undef, size_kib => 33554432 }, $raw,
    [$raw]
);
asks(
    'alloc_image of a broken number of KiB',
    sub { $plugin->alloc_image('ha', $scfg, 100, 'raw', undef, 528.25) },
    'alloc_image', { vmid => 100, format => 'raw', name => undef, size_kib => 529 }, $raw, [$raw]
);
asks(
    'alloc_image with a name',
    sub { $plugin->alloc_image('ha', $scfg, 100, 'qcow2', 'vm-100-cloudinit.qcow2', 4096) },
    'alloc_image',
    { vmid => 100, format => 'qcow2', name => 'vm-100-cloudinit.qcow2', size_kib => 4096 },
    '100/vm-100-cloudinit.qcow2', ['100/vm-100-cloudinit.qcow2']
);
asks(
    'alloc_image of a VMDK, as PVE::GuestImport does for a disk of an OVA',
    sub { $plugin->alloc_image('ha', $scfg, '100', 'vmdk', undef, 1024) },
    'alloc_image', { vmid => 100, format => 'vmdk', name => undef, size_kib => 1024 },
    '100/vm-100-disk-0.vmdk', ['100/vm-100-disk-0.vmdk']
);
asks(
    'free_image', sub { $plugin->free_image('ha', $scfg, $raw, undef, 'raw') },
    'free_image', { volname => $raw, is_base => JSON::false, missing_ok => JSON::true },
    JSON::true, []
);
asks(
    'free_image of a base',
    sub { $plugin->free_image('ha', $scfg, '100/base-100-disk-0.raw', 'base-') },
    'free_image',
    {
        volname => '100/base-100-disk-0.raw',
        is_base => JSON::true,
        missing_ok => JSON::true,
    },
    JSON::true, []
);
# PVE::Storage::Plugin::free_image: "disk image '$path' does not exist", and undef.
subtest 'free_image of what does not exist warns and succeeds, as with PVE\'s base class' => sub {
    for my $case (
        [JSON::false, ["disk image '/mnt/pve/ha/images/100/vm-100-disk-0.raw' does not exist\n"]],
        [JSON::true, []],
        [undef, []], # what a backend from before an upgrade answers
    ) {
        my ($answer, $expected) = @{$case};
        my $backend = backend(free_image => $answer);
        my @warnings;
        local $SIG{__WARN__} = sub { push @warnings, @_ };
        my $result = $plugin->free_image('ha', $scfg, $raw, undef, 'raw');
        is($result, undef, 'undef: PVE has nothing to clean up');
        is_deeply(\@warnings, $expected, 'warnings after ' . ($answer // 'null'));
    }
};
asks(
    'volume_size_info in list context', sub { $plugin->volume_size_info($scfg, 'ha', $raw, 5) },
    'volume_size_info', { volname => $raw },
    { size => 9, format => 'raw', used => 8, parent => undef, ctime => 7 }, [9, 'raw', 8, undef, 7]
);
asks(
    'volume_size_info in scalar context',
    sub { scalar($plugin->volume_size_info($scfg, 'ha', $raw)) },
    'volume_size_info', { volname => $raw },
    { size => 9, format => 'raw', used => 8, parent => undef, ctime => 7 }, [9]
);
asks(
    'volume_resize', sub { $plugin->volume_resize($scfg, 'ha', $raw, '8589934592', 0) },
    'volume_resize', { volname => $raw, size => 8589934592 }, undef, []
);
asks(
    'create_base', sub { $plugin->create_base('ha', $scfg, $raw) },
    'create_base', { volname => $raw }, '100/base-100-disk-0.raw', ['100/base-100-disk-0.raw']
);
asks(
    'clone_image', sub { $plugin->clone_image($scfg, 'ha', $raw, '101', 's1') },
    'clone_image', { volname => $raw, vmid => 101, snap => 's1' },
    '101/vm-101-disk-0.raw', ['101/vm-101-disk-0.raw']
);
asks(
    'clone_image of a backed image', sub { $plugin->clone_image($scfg, 'ha', $qcow2, 101) },
    'clone_image', { volname => $qcow2, vmid => 101, snap => undef },
    '90/base-90-disk-0.qcow2/101/vm-101-disk-0.qcow2',
    ['90/base-90-disk-0.qcow2/101/vm-101-disk-0.qcow2']
);
asks(
    'rename_volume', sub { $plugin->rename_volume($scfg, 'ha', $raw, '101', 'vm-101-disk-7.raw') },
    'rename_volume', { volname => $raw, target_vmid => 101, target_name => 'vm-101-disk-7.raw' },
    '101/vm-101-disk-7.raw', ['ha:101/vm-101-disk-7.raw']
);
asks(
    'rename_volume without a name', sub { $plugin->rename_volume($scfg, 'ha', $raw, 101, undef) },
    'rename_volume', { volname => $raw, target_vmid => 101, target_name => undef },
    '101/vm-101-disk-0.raw', ['ha:101/vm-101-disk-0.raw']
);

# "rename_volume without a target VMID passes parse_volname's element 3 (the base name)".
for my $odd (undef, 'base-90-disk-0.qcow2') {
    asks(
        'rename_volume for ' . ($odd // 'nobody'),
        sub { $plugin->rename_volume($scfg, 'ha', $raw, $odd, 'vm-100-disk-7.raw') },
        'rename_volume',
        { volname => $raw, target_vmid => 100, target_name => 'vm-100-disk-7.raw' },
        '100/vm-100-disk-7.raw', ['ha:100/vm-100-disk-7.raw']
    );
}

for my $method (qw(volume_snapshot volume_snapshot_rollback volume_snapshot_delete)) {
    for my $volname ($raw, $qcow2) {
        asks(
            "$method of $volname", sub { $plugin->$method($scfg, 'ha', $volname, 's1') },
            $method, { volname => $volname, snap => 's1' }, undef, []
        );
    }
}
asks(
    'volume_snapshot_delete of a running guest, raw',
    sub { $plugin->volume_snapshot_delete($scfg, 'ha', $raw, 's1', 1) },
    'volume_snapshot_delete', { volname => $raw, snap => 's1' }, undef, []
);
my $blockers = [];
asks(
    'volume_rollback_is_possible',
    sub { $plugin->volume_rollback_is_possible($scfg, 'ha', $raw, 's1', $blockers) },
    'volume_rollback_is_possible', { volname => $raw, snap => 's1' }, JSON::true, [1]
);
is_deeply($blockers, [], 'no snapshot stands in the way of another');
my $info = { s1 => { id => 'F' x 32, timestamp => 5, 'virtual-size' => 6 } };
asks(
    'volume_snapshot_info', sub { $plugin->volume_snapshot_info($scfg, 'ha', $raw) },
    'volume_snapshot_info', { volname => $raw }, $info, [$info]
);
asks(
    'activate_volume', sub { $plugin->activate_volume('ha', $scfg, $raw, undef, {}, {}) },
    'activate_volume', { volname => $raw, snap => undef }, undef, [1]
);
asks(
    'activate_volume of a snapshot', sub { $plugin->activate_volume('ha', $scfg, $raw, 's1', {}) },
    'activate_volume', { volname => $raw, snap => 's1' }, undef, [1]
);

my $image =
    { volid => "ha:$raw", format => 'raw', size => 4, vmid => 100, used => 3, parent => undef };
my ($dated, $undated) = ({ %{$image}, ctime => 2 }, { %{$image}, ctime => undef });
asks(
    'list_images', sub { $plugin->list_images('ha', $scfg, undef, undef, {}) },
    'list_images', { vmid => undef, volids => undef }, [$dated],
    [[$dated]]
);
asks(
    'list_images of one guest', sub { $plugin->list_images('ha', $scfg, '100', undef, {}) },
    'list_images', { vmid => 100, volids => undef }, [$undated], [[$image]]
);
asks(
    'list_images of given volumes: $vollist overrides $vmid',
    sub { $plugin->list_images('ha', $scfg, 99, ["ha:$raw", 'local:1/x.raw', 'ha2:1/y.raw'], {}) },
    'list_images', { vmid => undef, volids => ["ha:$raw"] }, [$image], [[$image]]
);

subtest 'what needs no backend asks none' => sub {
    my $backend = backend('*' => undef);
    is_deeply(
        $plugin->list_images('ha', $scfg, undef, ['local:1/x.raw'], {}), [],
        'foreign volumes'
    );
    is($plugin->volume_resize($scfg, 'ha', $raw, 4096, 1), 1, 'QEMU resizes what it has open');
    is(
        $plugin->volume_snapshot_delete($scfg, 'ha', $qcow2, 's1', 1), 1,
        'and deletes its snapshots'
    );
    like(
        dies(sub { $plugin->volume_resize($scfg, 'ha', $raw, 4096, 0, 's1') }), qr/snapshot/,
        'a snapshot is not resized'
    );
    like(
        dies(sub { $plugin->volume_resize($scfg, 'ha', '100/x.vmdk', 4096, 0) }), qr/format/,
        'nor vmdk'
    );
    like(
        dies(sub { $plugin->alloc_image('ha', $scfg, 100, 'subvol', undef, 0) }),
        qr/give the container's disk a size\n\z/, 'a container without a size'
    );
    like(
        dies(
            sub { $plugin->status('ha', scfg('drbdocfs2-resource' => undef), {}); die "inactive\n" }
        ),
        qr/inactive/,
        'a section without its resource is inactive'
    );
    like(
        dies(sub { $plugin->activate_storage('ha', scfg('drbdocfs2-resource' => undef), {}) }),
        qr/give --drbdocfs2-resource/, 'and says so when activated'
    );
    is(
        dies(sub { $plugin->deactivate_storage('ha', $scfg, {}) }), undef,
        'deactivation leaves the mount'
    );
    like(
        dies(sub { $plugin->rename_snapshot($scfg, 'ha', $raw, 's1', 's2') }),
        qr/cannot be renamed\n\z/,
        'snapshots keep their names'
    );
    is($backend->requests(), undef, 'nobody was asked');
};

subtest 'the storage object follows the section' => sub {
    my $backend = backend('*' => undef);
    $plugin->activate_storage(
        'ha',
        scfg(
            'drbdocfs2-volume' => '3',
            'drbdocfs2-uuid' => 'B' x 32,
            preallocation => 'falloc',
            'content-dirs' => { images => '/vm//disks/' },
        ),
        {},
    );
    my ($request) = $backend->requests();
    is_deeply(
        $request->{params}->{storage},
        {
            %{$storage},
            volume => 3,
            uuid => 'B' x 32,
            preallocation => 'falloc',
            images_dir => 'vm/disks',
        },
        'all of it',
    );
};

# "Must never create directories on an unmounted path": the backend makes them, below the mount.
subtest 'content folders' => sub {
    my $backend = backend('*' => undef);
    my $folders = sub {
        $plugin->activate_storage('ha', scfg(@_), {});
        return ($backend->requests())[0]->{params}->{content_dirs};
    };
    my %all = map { $_ => 1 } qw(images rootdir vztmpl iso backup snippets);
    is_deeply(
        $folders->(content => {%all}),
        [qw(dump images snippets template/cache template/iso)], 'one for each content type'
    );
    is_deeply(
        $folders->(content => { rootdir => 1 }), [qw(dump images)],
        'containers are images here'
    );
    is_deeply($folders->(content => { images => 1 }), ['images'], 'images alone');
    is_deeply($folders->(content => { none => 1 }), [], 'nothing');
    is_deeply($folders->(content => undef), [], 'not said');
    is_deeply($folders->(content => {%all}, 'create-subdirs' => 0), [], 'create-subdirs off');
    is_deeply($folders->(content => {%all}, mkdir => 0), [], 'mkdir off');
    is_deeply(
        $folders->(content => { iso => 1 }, 'content-dirs' => { iso => '/a//b' }), ['a/b'],
        'moved'
    );
    like(
        dies(
            sub { $folders->(content => {%all}, 'content-dirs' => { iso => 'x', backup => 'x/' }) }
        ),
        qr/folder 'x' for both backup and iso/,
        'two types in one folder are refused',
    );
};

subtest 'deadlines: below PVE\'s 60 s, and the backend gives up first' => sub {
    my $backend = backend(
        status => { total => 1, avail => 1, used => 0, active => 1 },
        list_images => [],
        volume_size_info => { size => 1 },
        '*' => $raw,
    );
    my $timeout = sub { $_[0]->(); return ($backend->requests())[0]->{params}->{timeout} };
    is($timeout->(sub { $plugin->status('ha', $scfg, {}) }), 1.8, 'status');
    is($timeout->(sub { $plugin->activate_storage('ha', $scfg, {}) }), 39, 'activate_storage');
    {
        local $0 = 'pvestatd';
        is(
            $timeout->(sub { $plugin->activate_storage('ha', $scfg, {}) }),
            1.8, 'activate_storage by pvestatd, whose loop serves all storages',
        );
    }
    is(
        $timeout->(sub { $plugin->alloc_image('ha', $scfg, 100, 'raw', undef, 4) }), 49,
        'alloc_image'
    );
    is($timeout->(sub { $plugin->free_image('ha', $scfg, $raw) }), 49, 'free_image');
    is($timeout->(sub { $plugin->list_images('ha', $scfg) }), 49, 'list_images');
    is(
        $timeout->(sub { $plugin->volume_snapshot($scfg, 'ha', $raw, 's1') }), 49,
        'volume_snapshot'
    );
    is(
        $timeout->(sub { $plugin->volume_size_info($scfg, 'ha', $raw, 5) }), 4.5,
        "the caller's own"
    );
};

done_testing();
