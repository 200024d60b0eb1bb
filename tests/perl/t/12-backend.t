#!/usr/bin/perl -T

# The whole line: PVE::Storage's functions, the plugin, the client, the real service, real files.

use strict;
use warnings;

use Test::More;

use Digest::SHA qw(sha256_hex);
use File::Basename qw(dirname);
use IPC::Open2 qw(open2);
use JSON;

use DRBDOCFS2Test;

plan skip_all => 'the real backend needs a loop device, so root' if $> != 0;

my ($repository) = dirname(__FILE__) =~ m/\A(.*)\z/s;
$repository .= '/../../..';
chdir($repository) or die "cannot go to $repository: $!";
my $pid = open2(my $from, my $to, '/usr/bin/python3', '-m', 'tests.perl.real_backend');
my ($line) = (readline($from) // '') =~ m/\A(.*)\n\z/ or die 'the real backend does not start';
my $where = decode_json($line);

$PVE::Storage::DRBDOCFS2::Client::SOCKET = $where->{socket};
@PVE::Storage::DRBDOCFS2::Client::COMMAND = ($where->{command}, 'rpc');

my $scfg = scfg(path => $where->{path}, content => { images => 1, iso => 1 });
my $cfg = { ids => { ha => $scfg } };
my $MIB = 1024 * 1024;

sub path_of {
    my ($volid, $snap) = @_;
    return scalar(PVE::Storage::path($cfg, $volid, $snap)) if $snap;
    return scalar(PVE::Storage::path($cfg, $volid));
}

sub put {
    my ($volid, $text) = @_;
    open(my $fh, '+<', path_of($volid)) or die "cannot open $volid: $!";
    print {$fh} $text;
    close($fh) or die "cannot write $volid: $!";
    return;
}

sub get {
    my ($path, $length) = @_;
    open(my $fh, '<:raw', $path) or die "cannot open $path: $!";
    read($fh, my $text, $length);
    close($fh) or die "cannot read $path: $!";
    return $text;
}

sub volids {
    return [map { $_->{volid} } @{ PVE::Storage::vdisk_list($cfg, 'ha')->{ha} }];
}

subtest 'the storage' => sub {
    PVE::Storage::activate_storage($cfg, 'ha');
    ok(-d "$where->{path}/images" && -d "$where->{path}/template/iso", 'has its folders');
    my ($total, $avail, $used, $active) = plugin()->status('ha', $scfg, {});
    ok($active, 'is active');
    cmp_ok($total, '>', 100 * $MIB, 'total, in bytes');
    cmp_ok($avail, '<=', $total, 'avail');
    cmp_ok($used, '<', $total, 'used');
};

subtest 'raw: from allocation to removal' => sub {
    my $volid = PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'raw', undef, 8 * 1024);
    is($volid, 'ha:100/vm-100-disk-0.raw', 'allocated');
    my @stat = stat(path_of($volid));
    is(sprintf('%o', $stat[2] & oct('7777')), '640', 'mode 0640');
    is_deeply(
        [(PVE::Storage::volume_size_info($cfg, $volid, 5))[0, 1, 3]],
        [8 * $MIB, 'raw', undef], 'size info',
    );

    put($volid, 'one');
    PVE::Storage::volume_snapshot($cfg, $volid, 's1');
    put($volid, 'two');
    is(get(path_of($volid, 's1'), 3), 'one', 'the path of a snapshot is the snapshot');
    is_deeply([keys %{ PVE::Storage::volume_snapshot_info($cfg, $volid) }], ['s1'], 'it is listed');
    is_deeply(volids(), [$volid], 'but not as a volume');
    my $clone = PVE::Storage::vdisk_clone($cfg, $volid, 101, 's1');
    is(get(path_of($clone), 3), 'one', 'a clone of it');
    PVE::Storage::volume_snapshot_rollback($cfg, $volid, 's1');
    is(get(path_of($volid), 3), 'one', 'a rollback to it');

    PVE::Storage::volume_resize($cfg, $volid, 16 * $MIB, 0);
    is(scalar(PVE::Storage::volume_size_info($cfg, $volid, 5)), 16 * $MIB, 'resized');
    is(PVE::Storage::volume_resize($cfg, $volid, 32 * $MIB, 1), 1, 'not while QEMU has it open');

    my $renamed = PVE::Storage::rename_volume($cfg, $volid, 102);
    is($renamed, 'ha:102/vm-102-disk-0.raw', 'reassigned');
    is(get(path_of($renamed, 's1'), 3), 'one', 'with its snapshot');
    PVE::Storage::volume_snapshot_delete($cfg, $renamed, 's1', 1);
    is_deeply(
        PVE::Storage::volume_snapshot_info($cfg, $renamed), {},
        'which is deleted while it runs'
    );

    my $base = PVE::Storage::vdisk_create_base($cfg, $renamed);
    is($base, 'ha:102/base-102-disk-0.raw', 'a template');
    my $linked = PVE::Storage::vdisk_clone($cfg, $base, 103);
    is(get(path_of($linked), 3), 'one', 'and its clone');
    PVE::Storage::activate_volumes($cfg, [$linked, $base]);
    PVE::Storage::vdisk_free($cfg, $_) for $base, $linked, $clone;
    is_deeply(volids(), [], 'all freed');
};

subtest 'qcow2: snapshots inside' => sub {
    my $volid = PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'qcow2', undef, 8 * 1024);
    PVE::Storage::volume_snapshot($cfg, $volid, 's1');
    is_deeply([keys %{ PVE::Storage::volume_snapshot_info($cfg, $volid) }], ['s1'], 'made');
    PVE::Storage::volume_snapshot_rollback($cfg, $volid, 's1');
    PVE::Storage::volume_snapshot_delete($cfg, $volid, 's1');
    is_deeply(PVE::Storage::volume_snapshot_info($cfg, $volid), {}, 'deleted');
    PVE::Storage::vdisk_free($cfg, $volid);
};

subtest 'export and import' => sub {
    my $volid = PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'raw', undef, 4 * 1024);
    put($volid, 'one');
    PVE::Storage::volume_snapshot($cfg, $volid, 's1');
    put($volid, 'two');
    my $file = "$where->{path}/stream";
    for my $case ([undef, 'two', 0], ['s1', 'one', 1]) {
        my ($snap, $content, $rename) = @{$case};
        open(my $out, '>', $file) or die "cannot write $file: $!";
        PVE::Storage::volume_export($cfg, $out, $volid, 'raw+size', $snap, undef, 0);
        close($out) or die "cannot write $file: $!";
        is(-s $file, 4 * $MIB + 8, 'a header and the image');
        is(unpack('Q<', get($file, 8)), 4 * $MIB, 'the size in the header');

        open(my $in, '<', $file) or die "cannot read $file: $!";
        my $target = $rename ? $volid : 'ha:104/vm-104-disk-5.raw';
        my $new =
            PVE::Storage::volume_import($cfg, $in, $target, 'raw+size', undef, undef, 0, $rename);
        close($in) or die "cannot read $file: $!";
        is($new, $rename ? 'ha:100/vm-100-disk-1.raw' : $target, 'imported');
        is(get(path_of($new), 3), $content, $snap ? 'what the snapshot held' : 'what it holds now');
        PVE::Storage::vdisk_free($cfg, $new);
    }
    unlink($file) or die "cannot remove $file: $!";
    ## no critic (RequireBriefOpen)
    open(my $null, '<', '/dev/null') or die "cannot read /dev/null: $!";
    like(
        dies(
            sub {
                PVE::Storage::volume_import(
                    $cfg, $null, 'ha:104/vm-104-disk-0.raw', 'raw+size',
                    undef, undef, 0, 0
                );
            }
        ),
        qr/Nothing was kept; repeat the transfer\.\n\z/, 'an empty stream is refused',
    );
    PVE::Storage::vdisk_free($cfg, $volid);
    is_deeply(volids(), [], 'nothing is left');
};

# PVE::GuestImport: the name is reserved by an allocation, the extracted file renamed over it.
subtest 'a VMDK from an OVA' => sub {
    my $volid = PVE::Storage::vdisk_alloc($cfg, 'ha', 107, 'vmdk', undef, 1024);
    is($volid, 'ha:107/vm-107-disk-0.vmdk', 'reserved');
    my $extracted = "$where->{path}/images/107/extracted";
    open(my $fh, '>', $extracted) or die "cannot write $extracted: $!";
    print {$fh} '# Disk DescriptorFile';
    close($fh) or die "cannot write $extracted: $!";
    rename($extracted, path_of($volid)) or die "cannot rename $extracted: $!";
    is(get(path_of($volid), 6), '# Disk', 'replaced by what was extracted');
    is_deeply(volids(), [$volid], 'listed');
    PVE::Storage::vdisk_free($cfg, $volid);
    is_deeply(volids(), [], 'and freed once it has been copied');
};

# The warnings of $code, which must not die, in one text.
sub warns {
    my ($code) = @_;
    my $warnings = '';
    local $SIG{__WARN__} = sub { $warnings .= join('', @_) };
    is(dies($code), undef, 'succeeds');
    return $warnings;
}

subtest 'freeing what does not exist: a guest gets rid of a disk it lost' => sub {
    my $volid = PVE::Storage::vdisk_alloc($cfg, 'ha', 106, 'raw', undef, 4);
    my $path = path_of($volid);
    is(warns(sub { PVE::Storage::vdisk_free($cfg, $volid) }), '', 'silent while it exists');
    is(
        warns(sub { PVE::Storage::vdisk_free($cfg, $volid) }),
        "disk image '$path' does not exist\n", 'a warning when it does not'
    );
    my $base = 'ha:106/base-106-disk-0.raw';
    like(warns(sub { PVE::Storage::vdisk_free($cfg, $base) }), qr/does not exist/, 'nor a base');
};

subtest 'errors come from the bottom, in words' => sub {
    my $missing = 'ha:100/vm-100-disk-9.raw';
    like(
        dies(sub { PVE::Storage::volume_snapshot($cfg, $missing, 's1') }), qr/does not exist/,
        'snapshot'
    );
    like(
        dies(sub { PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'qed', undef, 4) }),
        qr/Format 'qed' is not offered/, 'format'
    );
    like(
        dies(sub { PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'raw', undef, 0) }), qr/above zero/,
        'no size'
    );
    like(
        dies(sub { PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'raw', 'vm-101-x.raw', 4) }),
        qr/names guest 101/, 'a foreign name',
    );
    my $volid = PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'raw', 'vm-100-mine.raw', 4);
    like(
        dies(sub { PVE::Storage::vdisk_alloc($cfg, 'ha', 100, 'raw', 'vm-100-mine.raw', 4) }),
        qr/already exists/, 'twice',
    );
    like(
        dies(sub { PVE::Storage::volume_resize($cfg, $volid, 1024, 0) }), qr/only grow/,
        'shrinking'
    );
    like(
        dies(sub { PVE::Storage::volume_snapshot_rollback($cfg, $volid, 'no') }),
        qr/no snapshot 'no'/, 'rollback'
    );
    PVE::Storage::vdisk_free($cfg, $volid);
};

subtest 'the same by the one-shot, where no service runs' => sub {
    local $PVE::Storage::DRBDOCFS2::Client::SOCKET = '/nonexistent/backend.sock';
    my $volid = PVE::Storage::vdisk_alloc($cfg, 'ha', 105, 'raw', undef, 4);
    is_deeply(volids(), [$volid], 'allocated and listed');
    PVE::Storage::vdisk_free($cfg, $volid);
    like(warns(sub { PVE::Storage::vdisk_free($cfg, $volid) }), qr/does not exist\n\z/, 'once');
};

close($to) or die "cannot end the backend: $!";
waitpid($pid, 0);
is($?, 0, 'the backend ended well');

done_testing();
