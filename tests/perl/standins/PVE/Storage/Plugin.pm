package PVE::Storage::Plugin;

# Stand-in: the base class of storage plugins, as far as a plugin on a folder relies on it.

use strict;
use warnings;

use PVE::Cluster;
use PVE::SectionConfig;
use PVE::Tools;

use base qw(PVE::SectionConfig);

our @SHARED_STORAGE = qw(nfs cifs rbd);
our $MAX_VOLUMES_PER_GUEST = 1024;

my %SUBDIR = (
    images => 'images',
    rootdir => 'private',
    iso => 'template/iso',
    vztmpl => 'template/cache',
    backup => 'dump',
    snippets => 'snippets',
    import => 'import',
);

# The properties of PVE 9; a test of an older PVE deletes some before init().
my $data = {
    propertyList => {
        type => { type => 'string' },
        nodes => { type => 'string' },
        content => { type => 'string' },
        'content-dirs' => { type => 'string' },
        disable => { type => 'boolean' },
        shared => { type => 'boolean' },
        format => { type => 'string', pattern => 'raw|qcow2|vmdk|subvol' },
        preallocation => { type => 'string', pattern => 'off|metadata|falloc|full' },
        'prune-backups' => { type => 'string' },
        'max-protected-backups' => { type => 'integer', minimum => -1 },
        'snapshot-as-volume-chain' => { type => 'boolean' },
    },
};

sub private { return $data }

sub decode_value {
    my ($class, $type, $key, $value) = @_;
    return $value if ref($value);
    return { map { $_ => 1 } PVE::Tools::split_list($value) }
        if $key eq 'nodes' || $key eq 'content';
    return { map { split(/=/, $_, 2) } PVE::Tools::split_list($value) } if $key eq 'content-dirs';
    return $value;
}

sub encode_value {
    my ($class, $type, $key, $value) = @_;
    return join(',', sort keys %{$value}) if $key eq 'nodes' || $key eq 'content';
    return join(',', map { "$_=$value->{$_}" } sort keys %{$value}) if $key eq 'content-dirs';
    return $value;
}

sub parse_config {
    my ($class, $filename, $text) = @_;
    my $config = $class->SUPER::parse_config($filename, $text);
    for my $section (grep { defined } values %{ $config->{ids} }) {
        my $type = $section->{type};
        $section->{content} //= $data->{plugindata}->{$type}->{content}->[1];
        $section->{shared} = 1 if grep { $_ eq $type } @SHARED_STORAGE;
    }
    return $config;
}

sub get_formats {
    my ($class, $scfg, $storeid) = @_;
    my ($valid, $default) = @{ $data->{plugindata}->{ $scfg->{type} }->{format} };
    return { default => $scfg->{format} || $default, valid => { %{$valid} } };
}

sub parse_volume_id {
    my ($volid) = @_;
    return wantarray ? ($1, $2) : $1 if $volid =~ m/^([a-z][a-z0-9\-_.]*[a-z0-9]):(.+)$/i;
    die "unable to parse volume ID '$volid'\n";
}

# (vtype, name, vmid, base name, base vmid, is base, format)
sub parse_volname {
    my ($class, $volname) = @_;
    my $image = qr!((base-)?[^/\s]+\.(raw|qcow2|vmdk|subvol))!;
    return ('images', $4, $3, $2, $1, $5, $6) if $volname =~ m!^(\d+)/([^/\s]+)/(\d+)/$image$!;
    return ('images', $2, $1, undef, undef, $3, $4) if $volname =~ m!^(\d+)/$image$!;
    return ($1, $2, undef, undef, undef, undef, 'raw')
        if $volname =~ m!^(iso|vztmpl|snippets|import)/([^/]+)$!;
    return ('backup', $1, $2, undef, undef, undef, 'raw')
        if $volname =~ m!^backup/(vzdump-(?:lxc|qemu)-(\d+)-[^/]+)$!;
    die "unable to parse directory volume name '$volname'\n";
}

sub get_vtype_subdirs { return {%SUBDIR} }

sub get_subdir {
    my ($class, $scfg, $vtype) = @_;
    return "$scfg->{path}/" . ($scfg->{'content-dirs'}->{$vtype} // $SUBDIR{$vtype});
}

sub filesystem_path {
    my ($class, $scfg, $volname, $snapname) = @_;
    my ($vtype, $name, $vmid, $format) = ($class->parse_volname($volname))[0, 1, 2, 6];
    die "can't snapshot this image format\n" if defined($snapname) && $format ne 'qcow2';
    my $folder = $class->get_subdir($scfg, $vtype) . ($vtype eq 'images' ? "/$vmid" : '');
    return wantarray ? ("$folder/$name", $vmid, $vtype) : "$folder/$name";
}

sub free_image {
    my ($class, $storeid, $scfg, $volname) = @_;
    my $path = $class->filesystem_path($scfg, $volname);
    unlink($path) or die "unlink '$path' failed - $!\n";
    return;
}

sub get_next_vm_diskname {
    my ($disks, $storeid, $vmid, $format, $scfg, $add_suffix) = @_;
    my $suffix = $add_suffix ? ".$format" : '';
    my %taken = map { m/(?:vm|base)-$vmid-disk-(\d+)\Q$suffix\E/ ? ($1 => 1) : () } @{$disks};
    for my $number (0 .. $MAX_VOLUMES_PER_GUEST - 1) {
        return "vm-$vmid-disk-$number$suffix" if !$taken{$number};
    }
    die "unable to allocate an image name for VM $vmid in storage '$storeid'\n";
}

sub find_free_diskname {
    my ($class, $storeid, $scfg, $vmid, $format, $add_suffix) = @_;
    my @disks = map { $_->{volid} } @{ $class->list_images($storeid, $scfg, $vmid) };
    return get_next_vm_diskname(\@disks, $storeid, $vmid, $format, $scfg, $add_suffix);
}

sub cluster_lock_storage {
    my ($class, $storeid, $shared, $timeout, $code, @param) = @_;
    my $result = PVE::Cluster::cfs_lock_storage($storeid, $timeout, $code, @param);
    die $@ if $@;
    return $result;
}

sub volume_size_info {
    my ($class, $scfg, $storeid, $volname) = @_;
    my $path = $class->filesystem_path($scfg, $volname);
    return (-s $path, 'raw') if wantarray;
    return -s $path;
}

sub activate_volume {
    my ($class, $storeid, $scfg, $volname, $snapname) = @_;
    my $path = $class->filesystem_path($scfg, $volname, $snapname);
    die "volume '$storeid:$volname' does not exist\n" if !-e $path;
    return;
}

sub volume_has_feature {
    my ($class, $scfg, $feature) = @_;
    return $feature eq 'copy' ? 1 : undef;
}

sub volume_export_formats {
    my ($class, $scfg, $storeid, $volname, $snapshot, $base_snapshot, $with_snapshots) = @_;
    return if defined($snapshot) || defined($base_snapshot);
    my ($vtype, $format) = ($class->parse_volname($volname))[0, 6];
    return $format eq 'vmdk' ? ('vmdk+size') : () if $with_snapshots;
    return $vtype eq 'backup' ? () : ('raw+size');
}

sub volume_import_formats { my ($class, @rest) = @_; return volume_export_formats($class, @rest) }

sub volume_export {
    my ($class, $scfg, $storeid, $fh, $volname) = @_;
    syswrite($fh, "base class: $volname");
    return;
}

sub volume_import {
    my ($class, $scfg, $storeid, $fh, $volname) = @_;
    return "$storeid:$volname";
}

sub check_connection { return 1 }
sub on_add_hook { return }
sub on_update_hook { return }
sub on_delete_hook { return }

1;
