#!/usr/bin/perl -T

# `pvesm add TYPE STORAGE --OPTION VALUE ...` in a node without Proxmox, as PVE::API2::Storage::Config has it: the options are
# checked, the plugin's hook is called, the storage is activated, and only then it is written to storage.cfg.

use strict;
use warnings;

use PVE::Storage;
use PVE::Storage::Plugin;

my $CONFIG_FILE = '/etc/pve/storage.cfg';

sub content {
    open(my $file, '<', $CONFIG_FILE) or return '';
    my $text = do { local $/ = undef; readline($file) };
    close($file) or die "$CONFIG_FILE: $!\n";
    return ($text =~ m/\A(.*)\z/s)[0];
}

sub main {
    my ($verb, $type, $storeid, @options) = @_;

    die "only 'add' is known here\n" if $verb ne 'add' || @options % 2;
    my %given = @options;
    my %config = map { (m/\A--([\w-]+)\z/)[0] => $given{$_} } keys %given;
    local $ENV{PATH} = '/usr/sbin:/usr/bin:/sbin:/bin';
    delete local @ENV{qw(IFS CDPATH ENV BASH_ENV)};
    my $cfg = $PVE::Storage::CONFIG = PVE::Storage::Plugin->parse_config($CONFIG_FILE, content());
    die "storage ID '$storeid' already defined\n" if $cfg->{ids}->{$storeid};
    my $plugin = PVE::Storage::Plugin->lookup($type);
    my $section = $plugin->check_config($storeid, \%config, 1, 1);
    $plugin->on_add_hook($storeid, $section);
    $cfg->{ids}->{$storeid} = $section;
    PVE::Storage::activate_storage($cfg, $storeid);
    open(my $file, '>', $CONFIG_FILE) or die "$CONFIG_FILE: $!\n";
    print {$file} PVE::Storage::Plugin->write_config($CONFIG_FILE, $cfg);
    close($file) or die "$CONFIG_FILE: $!\n";
    return;
}

main(map { m/\A(.*)\z/s } @ARGV);
