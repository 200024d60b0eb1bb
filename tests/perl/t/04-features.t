#!/usr/bin/perl -T

# volume_has_feature and the functions that decide without the backend.

use strict;
use warnings;

use Test::More;

use File::Path qw(make_path);

use DRBDOCFS2Test;

my $plugin = plugin();
my $scfg = scfg();

#   feature       state     raw qcow2 vmdk
my @table = map { [split] } grep { /\S/ } split(/\n/, <<'END');
    snapshot      current   1   1     0
    snapshot      snap      1   1     0
    snapshot      base      0   0     0
    clone         current   1   1     0
    clone         snap      1   0     0
    clone         base      1   1     0
    copy          current   1   1     1
    copy          snap      1   1     0
    copy          base      1   1     1
    template      current   1   1     1
    template      snap      0   0     0
    template      base      0   0     0
    sparseinit    current   1   1     1
    sparseinit    snap      0   0     0
    sparseinit    base      1   1     1
    rename        current   1   1     1
    rename        snap      0   0     0
    rename        base      0   0     0
    replicate     current   0   0     0
    replicate     snap      0   0     0
    replicate     base      0   0     0
    unheard-of    current   0   0     0
END

sub has {
    my ($feature, $state, $format, $running, $opts) = @_;
    my $volname = '100/' . ($state eq 'base' ? 'base' : 'vm') . "-100-disk-0.$format";
    my $snap = $state eq 'snap' ? 's1' : undef;
    return $plugin->volume_has_feature($scfg, $feature, 'ha', $volname, $snap, $running, $opts)
        ? 1
        : 0;
}

for my $row (@table) {
    my ($feature, $state, %expected) = ($row->[0], $row->[1]);
    @expected{qw(raw qcow2 vmdk)} = @{$row}[2 .. 4];
    for my $format (sort keys %expected) {
        is(has($feature, $state, $format, 0), $expected{$format}, "$feature of $state, $format");
        next if $feature eq 'clone';
        is(has($feature, $state, $format, 1), $expected{$format}, '... of a running guest');
    }
}

# "Answer 0 for clone of current when $running."
for my $format (qw(raw qcow2)) {
    is(has('clone', 'current', $format, 1), 0, "no clone of a running guest's $format");
    is(has('clone', 'base', $format, 1), 1, "but of a base $format");
}
is(has('clone', 'snap', 'raw', 1), 1, "and of a running guest's raw snapshot");

# "A container's linked clone passes valid_target_formats raw/subvol: answer for raw." A clone has
# the format of its source.
for my $case (
    ['raw', [qw(raw subvol)], 1],
    ['qcow2', [qw(raw subvol)], 0],
    ['raw', [qw(raw qcow2)], 1],
    ['qcow2', [qw(raw qcow2)], 1],
    ['raw', ['qcow2'], 0],
    ['raw', [], 0],
) {
    my ($format, $wanted, $expected) = @{$case};
    is(
        has('clone', 'base', $format, 0, { valid_target_formats => $wanted }), $expected,
        "clone of $format where one of (@{$wanted}) is wanted"
    );
}

subtest 'other content is none of ours' => sub {
    for my $feature (qw(snapshot clone copy)) {
        my @question = ($scfg, $feature, 'ha', 'iso/debian.iso');
        is(
            $plugin->volume_has_feature(@question),
            PVE::Storage::Plugin::volume_has_feature($plugin, @question),
            "$feature of an ISO image: what PVE says",
        );
    }
    ok(
        !$plugin->volume_has_feature($scfg, 'snapshot', 'ha', 'iso/debian.iso'),
        'which is no for snapshots'
    );
};

# "Without it a running container's ext4 is not frozen."
is($plugin->volume_snapshot_needs_fsfreeze(), 1, 'file systems are frozen for a snapshot');

is(
    $plugin->volume_qemu_snapshot_method('ha', $scfg, '100/vm-100-disk-0.raw'), 'storage',
    'raw: the storage takes the snapshot of a running VM'
);
is(
    $plugin->volume_qemu_snapshot_method('ha', $scfg, '100/vm-100-disk-0.qcow2'), 'qemu',
    'qcow2: QEMU does'
);

if (my $formats = $plugin->can('get_formats')) { # API 12
    is_deeply(
        $plugin->get_formats($scfg, 'ha'), { default => 'raw', valid => { raw => 1, qcow2 => 1 } },
        'raw is the default'
    );
    is(
        $plugin->get_formats(scfg(format => 'qcow2'), 'ha')->{default}, 'qcow2',
        'unless configured'
    );
}

subtest 'streams' => sub {
    my ($raw, $qcow2) = ('100/vm-100-disk-0.raw', '100/vm-100-disk-0.qcow2');
    my @cases = (
        # volume, snapshot, base snapshot, with snapshots, export formats, import formats
        [$raw, undef, undef, 0, ['raw+size'], ['raw+size']],
        [$raw, 's1', undef, 0, ['raw+size'], ['raw+size']],
        [$raw, undef, undef, 1, [], []],
        [$raw, 's1', 's0', 0, [], []],
        [$qcow2, undef, undef, 0, ['raw+size'], []],
        [$qcow2, 's1', undef, 0, ['raw+size'], []],
        [$qcow2, undef, undef, 1, ['qcow2+size'], ['qcow2+size']],
        [$qcow2, 's1', undef, 1, [], ['qcow2+size']],
        [$qcow2, undef, 's0', 1, [], []],
    );
    for my $case (@cases) {
        my ($volname, $snap, $base, $with, $export, $import) = @{$case};
        my $name = join(' ', map { $_ // '-' } $volname, $snap, $base, $with);
        is_deeply(
            [$plugin->volume_export_formats($scfg, 'ha', $volname, $snap, $base, $with)],
            $export, "export: $name",
        );
        is_deeply(
            [$plugin->volume_import_formats($scfg, 'ha', $volname, $snap, $base, $with)],
            $import, "import: $name",
        );
    }
    # PVE 7's base class looks at the file, which has to exist for that.
    my $folder = temp_dir();
    my $other = scfg(path => "$folder");
    make_path("$folder/template/iso", "$folder/images/100");
    for my $volname ('iso/debian.iso', '100/vm-100-disk-0.vmdk') {
        my $path = $plugin->path($other, $volname, 'ha');
        open(my $fh, '>', $path) or die "cannot write $path: $!";
        close($fh) or die "cannot write $path: $!";
        for my $method (qw(volume_export_formats volume_import_formats)) {
            my @question = ($other, 'ha', $volname, undef, undef, $volname =~ m/vmdk/ ? 1 : 0);
            is_deeply(
                [$plugin->$method(@question)],
                [PVE::Storage::Plugin->can($method)->($plugin, @question)],
                "$method of $volname: what PVE says",
            );
        }
    }
};

done_testing();
