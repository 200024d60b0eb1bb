#!/usr/bin/perl -T

# Calls a storage plugin class the way Proxmox's daemons do and tells how long that took: one JSON request a line on
# stdin, one JSON answer a line on stdout.
#
#   driver.pl real|reenacted SOCKET
#   {"side":"mirror","path":"/storage","do":"size_info","args":["100/vm-100-disk-0.raw"]}
#       -> {"seconds":0.0004,"result":[...]} or {"error":"..."}
#
# A path is a storage of both sides: of "mirror", our plugin class that asks the service on SOCKET, and of "dir", PVE's
# base class: its own code where a real PVE tree is on @INC ("real"), else the re-enactment in Bench::DirBase.

use strict;
use warnings;

use IO::Handle;
use JSON;
use POSIX ();
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);

use PVE::Storage::Custom::DRBDOCFS2Plugin;

BEGIN {
    PVE::Storage::Custom::DRBDOCFS2Plugin->register()
        if !PVE::Storage::Plugin->private()->{plugins}->{drbdocfs2};
}

use PVE::Storage;
use PVE::Storage::DRBDOCFS2::Client;

# The bench hands over what it made itself; Proxmox checks its users' input long before this layer.
sub trusted {
    my ($text) = @_;
    return ($text =~ m/\A(.*)\z/s)[0];
}

# What PVE::Storage::vdisk_free does while it holds the lock of the storage.
sub free_under_lock {
    my ($class, $cfg, $storeid, $is_base_and_used, $volname) = @_;

    die "base volume '$volname' is still in use by linked clones\n"
        if $is_base_and_used->($cfg, "$storeid:$volname");
    my ($is_base, $format) = ($class->parse_volname($volname))[5, 6];
    return $class->free_image($storeid, $cfg->{ids}->{$storeid}, $volname, $is_base, $format);
}

my %CALL = (
    list => sub {
        my ($class, $cfg, $storeid) = @_;
        return $class->list_images($storeid, $cfg->{ids}->{$storeid});
    },
    alloc => sub {
        my ($class, $cfg, $storeid, undef, $vmid, $format, $kib) = @_;
        return $class->alloc_image($storeid, $cfg->{ids}->{$storeid}, $vmid, $format, undef, $kib);
    },
    free => sub {
        my ($class, $cfg, $storeid, undef, $volname) = @_;
        my ($is_base, $format) = ($class->parse_volname($volname))[5, 6];
        return $class->free_image($storeid, $cfg->{ids}->{$storeid}, $volname, $is_base, $format);
    },
    free_under_lock => \&free_under_lock,
    size_info => sub {
        my ($class, $cfg, $storeid, undef, $volname) = @_;
        return [$class->volume_size_info($cfg->{ids}->{$storeid}, $storeid, $volname)];
    },
    status => sub {
        my ($class, $cfg, $storeid) = @_;
        return [$class->status($storeid, $cfg->{ids}->{$storeid}, {})];
    },
    snapshot => sub {
        my ($class, $cfg, $storeid, undef, $volname, $snap) = @_;
        return $class->volume_snapshot($cfg->{ids}->{$storeid}, $storeid, $volname, $snap);
    },
    snapshot_delete => sub {
        my ($class, $cfg, $storeid, undef, $volname, $snap) = @_;
        return $class->volume_snapshot_delete($cfg->{ids}->{$storeid}, $storeid, $volname, $snap);
    },
    create_base => sub {
        my ($class, $cfg, $storeid, undef, $volname) = @_;
        return $class->create_base($storeid, $cfg->{ids}->{$storeid}, $volname);
    },
    clone => sub {
        my ($class, $cfg, $storeid, undef, $volname, $vmid) = @_;
        return $class->clone_image($cfg->{ids}->{$storeid}, $storeid, $volname, $vmid);
    },
);

sub config {
    my ($path) = @_;

    my %common = (content => { images => 1 }, path => $path);
    return {
        ids => {
            mirror =>
                { %common, type => 'drbdocfs2', shared => 1, 'drbdocfs2-resource' => 'r0' },
            dir => { %common, type => 'dir' },
        },
    };
}

sub answer {
    my ($sides, $is_base_and_used, $line) = @_;

    my $request = JSON->new->utf8->decode(trusted($line));
    my $class = $sides->{ $request->{side} } // die "there is no side '$request->{side}'\n";
    my $call = $CALL{ $request->{do} } // die "there is no call '$request->{do}'\n";
    my $cfg = config(trusted($request->{path}));
    my @arguments = ($class, $cfg, $request->{side}, $is_base_and_used, @{ $request->{args} });

    my $started = clock_gettime(CLOCK_MONOTONIC);
    my $result = eval { $call->(@arguments) };
    my $error = $@;
    my $seconds = clock_gettime(CLOCK_MONOTONIC) - $started;
    return { error => $error } if $error;
    return { seconds => $seconds, result => $result };
}

# The base class passes on what qemu-img prints: answers get an output of their own.
sub keep_standard_output {
    my $fd = POSIX::dup(fileno(STDOUT)) // die "cannot keep standard output: $!\n";
    open(STDOUT, '>', '/dev/null') or die "cannot open /dev/null: $!\n";
    my $answers = IO::Handle->new_from_fd($fd, 'w') // die "cannot keep standard output: $!\n";
    $answers->autoflush(1);
    return $answers;
}

sub main {
    my ($kind, $socket) = @_;

    local $ENV{PATH} = '/usr/sbin:/usr/bin:/sbin:/bin';
    delete local @ENV{qw(IFS CDPATH ENV BASH_ENV)};

    my $answers = keep_standard_output();
    $PVE::Storage::DRBDOCFS2::Client::SOCKET = $socket; ## no critic (ProhibitPackageVars)
    my %sides =
        (mirror => 'PVE::Storage::Custom::DRBDOCFS2Plugin', dir => 'PVE::Storage::DirPlugin');
    my $is_base_and_used = PVE::Storage->can('volume_is_base_and_used');
    if ($kind eq 'reenacted') {
        require Bench::DirBase;
        $sides{dir} = 'Bench::DirBase';
        $is_base_and_used = sub {
            my ($config, $volid) = @_;
            my ($storeid, $volname) = split(/:/, $volid, 2);
            return Bench::DirBase::is_base_and_used($sides{$storeid}, $config, $storeid, $volname);
        };
    }
    while (defined(my $line = readline(*STDIN))) {
        my $answer = answer(\%sides, $is_base_and_used, $line);
        print {$answers} JSON->new->utf8->canonical->encode($answer) . "\n";
    }
    return;
}

main(map { trusted($_) } @ARGV);
