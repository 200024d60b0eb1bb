package StorageCfgFile;

# `use StorageCfgFile '/PATH'`: storage.cfg is that file, read and written by whatever PVE is on @INC
# (real, or the stand-ins); there is no pmxcfs to ask or to lock with.

use strict;
use warnings;

sub import {
    my ($class, $named) = @_;

    my ($path) = $named =~ m/\A(.+)\z/s; # untainted
    require PVE::Storage::Custom::DRBDOCFS2Plugin;
    PVE::Storage::Custom::DRBDOCFS2Plugin->register()
        if !-e '/usr/share/perl5/PVE/Storage/Custom/DRBDOCFS2Plugin.pm'
        && !PVE::Storage::Plugin->private()->{plugins}->{drbdocfs2};
    require PVE::Storage;
    require PVE::Cluster;

    no warnings 'redefine'; ## no critic (ProhibitNoWarnings)
    *PVE::Cluster::cfs_update = sub { return };
    *PVE::Storage::config = sub {
        return PVE::Storage::Plugin->parse_config('storage.cfg', _read($path));
    };
    *PVE::Storage::write_config = sub {
        my ($cfg) = @_;
        _write($path, PVE::Storage::Plugin->write_config('storage.cfg', $cfg));
        return;
    };
    *PVE::Storage::lock_storage_config = sub {
        my ($code, $message) = @_;
        die "it is locked already" if -e "$path.lock";
        _write("$path.lock", '');
        my $done = eval { $code->(); 1 };
        my $error = $@;
        unlink("$path.lock");
        die "$message: $error" if !$done;
        return;
    };
    return;
}

sub _read {
    my ($path) = @_;
    open(my $fh, '<', $path) or die "cannot read $path: $!\n";
    my $text = do { local $/ = undef; readline($fh) };
    close($fh) or die "cannot read $path: $!\n";
    return $text // '';
}

sub _write {
    my ($path, $text) = @_;
    open(my $fh, '>', $path) or die "cannot write $path: $!\n";
    print {$fh} $text;
    close($fh) or die "cannot write $path: $!\n";
    return;
}

1;
