#!/usr/bin/perl -T

# What Proxmox's daemons do with a storage, in a node without Proxmox: calls the functions of PVE::Storage under perl -T.
#
#   plugin.pl                                   one JSON request a line on stdin, one JSON answer a line on stdout:
#       {"call":"vdisk_alloc","args":["ha",100,"raw",null,4096]} -> {"result":["ha:100/..."],"seconds":0.01}
#       or {"error":"...","seconds":0.01}
#   plugin.pl export VOLID FORMAT SNAP|- >FILE  the stream on stdout
#   plugin.pl import VOLID FORMAT <FILE         the stream on stdin; the volume's name on stderr

use strict;
use warnings;

use JSON;
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);

use PVE::Storage;
use PVE::Storage::Plugin;

my $CONFIG_FILE = '/etc/pve/storage.cfg';

# The lab hands over what tests mean; Proxmox checks its users' input long before this layer.
sub trusted {
    my ($text) = @_;
    return ($text =~ m/\A(.*)\z/s)[0];
}

sub storages {
    open(my $file, '<', $CONFIG_FILE) or die "$CONFIG_FILE: $!\n";
    my $text = do { local $/ = undef; readline($file) };
    close($file) or die "$CONFIG_FILE: $!\n";
    return PVE::Storage::Plugin->parse_config($CONFIG_FILE, trusted($text));
}

# What PVE::Storage has no function for: a method of the plugin that takes a section and its name.
sub of_the_plugin {
    my ($cfg, $method, $storeid) = @_;
    my $scfg = PVE::Storage::storage_config($cfg, $storeid);
    return PVE::Storage::Plugin->lookup($scfg->{type})->$method($scfg, $storeid);
}

sub answer {
    my ($cfg, $line) = @_;

    my $started = clock_gettime(CLOCK_MONOTONIC);
    my %answer = eval {
        my $request = JSON->new->utf8->decode(trusted($line));
        my $function = PVE::Storage->can($request->{call});
        my @result =
            $function
            ? $function->($cfg, @{ $request->{args} })
            : of_the_plugin($cfg, $request->{call}, @{ $request->{args} });
        (result => \@result);
    };
    %answer = (error => $@) if $@;
    $answer{seconds} = clock_gettime(CLOCK_MONOTONIC) - $started;
    return JSON->new->utf8->canonical->encode(\%answer);
}

sub main {
    my ($what, $volid, $format, $snap) = @_;

    local $ENV{PATH} = '/usr/sbin:/usr/bin:/sbin:/bin';
    delete local @ENV{qw(IFS CDPATH ENV BASH_ENV)};
    my $cfg = $PVE::Storage::CONFIG = storages();
    if (!defined($what)) {
        local $| = 1;
        while (defined(my $line = readline(*STDIN))) {
            print answer($cfg, $line), "\n";
        }
    } elsif ($what eq 'export') {
        my $snapshot = $snap eq '-' ? undef : $snap;
        PVE::Storage::volume_export($cfg, \*STDOUT, $volid, $format, $snapshot, undef, 0);
    } elsif ($what eq 'import') {
        my $made = PVE::Storage::volume_import($cfg, \*STDIN, $volid, $format, undef, undef, 0, 0);
        print {*STDERR} "$made\n";
    } else {
        die "say export, import or nothing\n";
    }
    return;
}

main(map { trusted($_) } @ARGV);
