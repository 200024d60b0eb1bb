package Bench::DirBase;

# The base class, re-enacted: the work that PVE's own class for folders (PVE::Storage::Plugin behind DirPlugin) does for
# a call, as it was measured: one qemu-img process per image or call, its JSON decoded. Our own code, written from that
# description, for machines without Proxmox; docs/bench.md compares its times with the real one's.

use strict;
use warnings;

use File::Path qw(make_path);
use IO::Handle;
use IO::Select;
use IPC::Open3 qw(open3);
use JSON;
use POSIX ();
use Symbol qw(gensym);

use PVE::Storage::Plugin;

my $QEMU_IMG = '/usr/bin/qemu-img';
my $CHUNK = 4096; # bytes a read from a pipe
my $STATUS_TIMEOUT = 2; # seconds
my %STATFS = (x86_64 => 137, aarch64 => 43); # the number of the system call
my $IMAGE_RE = qr!^(/.+/(\d+)/((?:vm|base)-\d+-[^/]+\.(raw|qcow2|vmdk|subvol)))$!;

# fork() copies the page tables: it costs a process with all of PVE's modules twice what it costs a small one.
my $PVE_SIZE = 64 * 1024 * 1024; # bytes a process has more with the real PVE::Storage than with the stand-ins
my @ballast;

sub weigh_as_much_as_pve {
    return if @ballast;
    @ballast = map { 'x' x 4000 } 1 .. $PVE_SIZE / 4096;
    return;
}

sub parse_volname {
    my ($class, $volname) = @_;
    return PVE::Storage::Plugin->parse_volname($volname);
}

# Start, read both outputs line by line as they come, wait: what PVE::Tools::run_command is to its callers.
sub run_command {
    my ($command, $on_line) = @_;

    weigh_as_much_as_pve();
    my ($out, $err) = (IO::Handle->new(), gensym());
    my $pid = open3(my $in, $out, $err, @{$command});
    close($in);
    my $select = IO::Select->new($out, $err);
    my %seen = ($out => '', $err => '');
    while (my @ready = $select->can_read()) {
        for my $handle (@ready) {
            if (!sysread($handle, my $data, $CHUNK)) {
                $select->remove($handle);
                next;
            } else {
                $seen{$handle} .= $data;
            }
            while ($seen{$handle} =~ s/^([^\n]*)\n//) {
                $on_line->($1) if $handle == $out;
            }
        }
    }
    close($_) for $out, $err;
    waitpid($pid, 0);
    die "command '@{$command}' failed: status $?\n" if $?;
    return;
}

# A child process asks the file system, so that one that hangs costs no more than the deadline.
sub status {
    my ($class, $storeid, $scfg, $cache) = @_;

    weigh_as_much_as_pve();
    my ($blocks, $free, $available) = _in_child($STATUS_TIMEOUT, \&_statfs, $scfg->{path});
    return if !$blocks;
    return ($blocks, $available, $blocks - $free, 1);
}

# What a function returns in a process of its own, as numbers; nothing after $timeout seconds.
sub _in_child {
    my ($timeout, $code, @arguments) = @_;

    pipe(my $out, my $in) or die "pipe failed - $!\n";
    my $pid = fork() // die "fork failed - $!\n";
    if (!$pid) {
        close($out);
        syswrite($in, encode_json([$code->(@arguments)]) . "\n");
        POSIX::_exit(0);
    }
    close($in);
    my $line = '';
    my $read = eval {
        local $SIG{ALRM} = sub { die "timeout\n" }; ## no critic (RequireLocalizedPunctuationVars)
        alarm($timeout);
        $line = readline($out) // '';
        alarm(0);
        1;
    };
    kill('KILL', $pid) if !$read;
    close($out);
    waitpid($pid, 0);
    return $line eq '' ? () : map { m/^(\d+)$/ } @{ decode_json($line) };
}

# Bytes in all, free, available, by statfs(2).
sub _statfs {
    my ($path) = @_;

    my $number = $STATFS{ (POSIX::uname())[4] } // die "statfs(2) has no known number here\n";
    my $buffer = "\0" x 120;
    return if syscall($number, $path, $buffer) != 0;
    my ($type, $unit, $blocks, $free, $available) = unpack('q5', $buffer);
    return map { $_ * $unit } $blocks, $free, $available;
}

# (size, format, used, parent, ctime)
sub file_size_info {
    my ($path, $format) = @_;

    my $ctime = (stat($path))[10];
    my $text = '';
    run_command(
        [$QEMU_IMG, 'info', '--output=json', $path, '-f', $format],
        sub { $text .= shift },
    );
    my $info = decode_json($text);
    my ($size, $used) = map { m/^(\d+)$/ } $info->@{qw(virtual-size actual-size)};
    return (int($size), $info->{format}, int($used), $info->{'backing-filename'}, $ctime);
}

# Every guest's folder is looked through, whoever is asked for.
sub list_images {
    my ($class, $storeid, $scfg, $vmid) = @_;

    my @images;
    for my $found (glob("$scfg->{path}/images/[0-9][0-9]*/*")) {
        my ($path, $owner, $name, $format) = $found =~ $IMAGE_RE or next;
        next if defined($vmid) && $owner ne $vmid;
        my ($size, undef, $used, $parent, $ctime) = file_size_info($path, $format);
        my $base = $parent && $parent =~ m!^\.\./(\d+/[^/]+)$! ? "$1/" : '';
        push @images,
            {
            volid => "$storeid:$base$owner/$name",
            format => $format,
            size => $size,
            vmid => $owner,
            used => $used,
            parent => $parent,
            ctime => $ctime,
            };
    }
    return \@images;
}

sub volume_size_info {
    my ($class, $scfg, $storeid, $volname) = @_;
    return file_size_info("$scfg->{path}/images/$volname", ($class->parse_volname($volname))[6]);
}

sub alloc_image {
    my ($class, $storeid, $scfg, $vmid, $format, $name, $kib) = @_;

    my $folder = "$scfg->{path}/images/$vmid";
    make_path($folder);
    $name //= _next_name($class->list_images($storeid, $scfg, $vmid), $vmid, $format);
    die "disk image '$folder/$name' already exists\n" if -e "$folder/$name";
    my $preallocation = $format eq 'raw' ? 'off' : 'metadata';
    run_command(
        [
            $QEMU_IMG, 'create', '-o', "preallocation=$preallocation",
            '-f', $format, "$folder/$name", "${kib}K",
        ],
        sub { },
    );
    return "$vmid/$name";
}

sub _next_name {
    my ($images, $vmid, $format) = @_;

    my %taken = map { $_->{volid} =~ m/-disk-(\d+)\./ ? ($1 => 1) : () } @{$images};
    my ($number) = grep { !$taken{$_} } 0 .. 1023;
    return "vm-$vmid-disk-$number.$format";
}

# A linked clone: a qcow2 image backed by the template's.
sub clone_image {
    my ($class, $scfg, $storeid, $volname, $vmid) = @_;

    my (undef, $base, $base_vmid, $format) = ($class->parse_volname($volname))[0, 1, 2, 6];
    my $folder = "$scfg->{path}/images/$vmid";
    make_path($folder);
    my $name = _next_name($class->list_images($storeid, $scfg, $vmid), $vmid, 'qcow2');
    run_command(
        [
            $QEMU_IMG, 'create', '-F', $format, '-b', "../$base_vmid/$base", '-f', 'qcow2',
            "$folder/$name", '-o', 'extended_l2=on,cluster_size=128k,preallocation=off',
        ],
        sub { },
    );
    return "$base_vmid/$base/$vmid/$name";
}

sub free_image {
    my ($class, $storeid, $scfg, $volname, $is_base) = @_;

    my ($name, $vmid) = ($class->parse_volname($volname))[1, 2];
    my $path = "$scfg->{path}/images/$vmid/$name";
    run_command(['/usr/bin/chattr', '-i', $path], sub { }) if $is_base;
    unlink($path) or die "unlink '$path' failed - $!\n";
    rmdir("$scfg->{path}/images/$vmid");
    return;
}

# PVE::Storage::volume_is_base_and_used: the images of the whole storage, for the names that show a base.
sub is_base_and_used {
    my ($class, $cfg, $storeid, $volname) = @_;

    my ($name, $vmid, $is_base) = ($class->parse_volname($volname))[1, 2, 5];
    return 0 if !$is_base;
    for my $image (@{ $class->list_images($storeid, $cfg->{ids}->{$storeid}) }) {
        my $other = (split(/:/, $image->{volid}, 2))[1];
        my ($base, $base_vmid) = ($class->parse_volname($other))[3, 4];
        return 1 if $base && $base eq $name && $base_vmid == $vmid;
    }
    return 0;
}

1;
