package PVE::Storage;

# Stand-in: what the rest of PVE calls. Order and locks are the contract's: activate first, then the
# plugin's method, inside the cluster lock where PVE holds it.

use strict;
use warnings;

use PVE::Cluster;
use PVE::JSONSchema;
use PVE::Storage::DirPlugin;
use PVE::Storage::Plugin;

our $APIVER = 15;
our $APIAGE = 6;
our $CONFIG = { ids => {} };

sub APIVER { return $APIVER }
sub APIAGE { return $APIAGE }

# A node's own plugins are found by their file name; here the caller names them.
sub load_plugin {
    my ($class) = @_;
    (my $file = "$class.pm") =~ s!::!/!g;
    require $file;
    die "not derived from PVE::Storage::Plugin\n" if !$class->isa('PVE::Storage::Plugin');
    my $version = $class->api();
    die "implements an API version newer than current ($version > $APIVER)\n" if $version > $APIVER;
    die "API version too old, please update the plugin\n" if $version < $APIVER - $APIAGE;
    $class->register();
    warn "Plugin \"$class\" is implementing an older storage API, an upgrade is recommended\n"

        if $version != $APIVER;
    return;
}

PVE::Storage::DirPlugin->register();
PVE::Storage::Plugin->private()->{plugins}->{drbdocfs2}
    or eval { load_plugin('PVE::Storage::Custom::DRBDOCFS2Plugin'); 1 }
    or warn "Error loading storage plugin: $@";
PVE::Storage::Plugin->init();

sub config { return $CONFIG }

sub storage_config {
    my ($cfg, $storeid) = @_;
    return $cfg->{ids}->{$storeid} || die "storage '$storeid' does not exist\n";
}

sub activate_storage {
    my ($cfg, $storeid, $cache) = @_;
    my $scfg = storage_config($cfg, $storeid);
    die "storage '$storeid' is disabled\n" if $scfg->{disable};
    my $plugin = PVE::Storage::Plugin->lookup($scfg->{type});
    die "storage '$storeid' is not online\n" if !$plugin->check_connection($storeid, $scfg);
    $plugin->activate_storage($storeid, $scfg, $cache // {});
    return;
}

# Split a volume ID: (plugin, scfg, storeid, volname)
sub _find {
    my ($cfg, $volid) = @_;
    my ($storeid, $volname) = PVE::Storage::Plugin::parse_volume_id($volid);
    my $scfg = storage_config($cfg, $storeid);
    return (PVE::Storage::Plugin->lookup($scfg->{type}), $scfg, $storeid, $volname);
}

sub _locked {
    my ($cfg, $storeid, $code) = @_;
    activate_storage($cfg, $storeid);
    my $scfg = storage_config($cfg, $storeid);
    my $plugin = PVE::Storage::Plugin->lookup($scfg->{type});
    return $plugin->cluster_lock_storage($storeid, $scfg->{shared}, undef, $code, $plugin, $scfg);
}

sub vdisk_alloc {
    my ($cfg, $storeid, $vmid, $format, $name, $size) = @_;
    return _locked(
        $cfg, $storeid,
        sub {
            my ($plugin, $scfg) = @_;
            $format ||= $plugin->get_formats($scfg, $storeid)->{default};
            my $umask = umask(umask() | oct('037'));
            my $volname =
                eval { $plugin->alloc_image($storeid, $scfg, $vmid, $format, $name, $size) };
            my $error = $@;
            umask($umask);
            die $error if $error;
            return "$storeid:$volname";
        },
    );
}

sub vdisk_free {
    my ($cfg, $volid) = @_;
    my (undef, undef, $storeid, $volname) = _find($cfg, $volid);
    my $cleanup = _locked(
        $cfg, $storeid,
        sub {
            my ($plugin, $scfg) = @_;
            my ($is_base, $format) = ($plugin->parse_volname($volname))[5, 6];
            return $plugin->free_image($storeid, $scfg, $volname, $is_base, $format);
        },
    );
    $cleanup->() if $cleanup;
    return;
}

sub vdisk_clone {
    my ($cfg, $volid, $vmid, $snap) = @_;
    my (undef, undef, $storeid, $volname) = _find($cfg, $volid);
    return _locked(
        $cfg, $storeid,
        sub {
            my ($plugin, $scfg) = @_;
            return "$storeid:" . $plugin->clone_image($scfg, $storeid, $volname, $vmid, $snap);
        },
    );
}

sub vdisk_create_base {
    my ($cfg, $volid) = @_;
    my (undef, undef, $storeid, $volname) = _find($cfg, $volid);
    return _locked(
        $cfg, $storeid,
        sub {
            my ($plugin, $scfg) = @_;
            return "$storeid:" . $plugin->create_base($storeid, $scfg, $volname);
        },
    );
}

sub vdisk_list {
    my ($cfg, $storeid, $vmid, $vollist) = @_;
    activate_storage($cfg, $storeid);
    my $scfg = storage_config($cfg, $storeid);
    my $images = PVE::Storage::Plugin->lookup($scfg->{type})
        ->list_images($storeid, $scfg, $vmid, $vollist, {});
    return { $storeid => [sort { lc($a->{volid}) cmp lc($b->{volid}) } @{$images}] };
}

sub rename_volume {
    my ($cfg, $volid, $target_vmid, $target_volname) = @_;
    my ($plugin, undef, $storeid, $volname) = _find($cfg, $volid);
    $target_vmid ||= ($plugin->parse_volname($volname))[3]; # the base's name: PVE's own slip
    return _locked(
        $cfg, $storeid,
        sub {
            my ($class, $scfg) = @_;
            return $class->rename_volume($scfg, $storeid, $volname, $target_vmid, $target_volname);
        },
    );
}

sub storage_info {
    my ($cfg, $storeid) = @_;
    my $info = { total => 0, avail => 0, used => 0, active => 0 };
    my $scfg = storage_config($cfg, $storeid);
    my $plugin = PVE::Storage::Plugin->lookup($scfg->{type});
    if (!eval { activate_storage($cfg, $storeid); 1 }) {
        warn $@;
        return { $storeid => $info };
    }
    my @status = eval { $plugin->status($storeid, $scfg, {}) };
    warn $@ if $@;
    @{$info}{qw(total avail used active)} = @status if $status[3];
    return { $storeid => $info };
}

sub path {
    my ($cfg, $volid, $snap) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    my ($path, $vmid, $vtype) = $plugin->path($scfg, $volname, $storeid, $snap);
    return wantarray ? ($path, $vmid, $vtype) : $path;
}

sub activate_volumes {
    my ($cfg, $volids, $snap) = @_;
    for my $volid (@{$volids}) {
        my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
        activate_storage($cfg, $storeid);
        $plugin->activate_volume($storeid, $scfg, $volname, $snap, {});
    }
    return;
}

sub volume_size_info {
    my ($cfg, $volid, $timeout) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    return $plugin->volume_size_info($scfg, $storeid, $volname, $timeout);
}

sub volume_resize {
    my ($cfg, $volid, $size, $running) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    return $plugin->volume_resize($scfg, $storeid, $volname, $size, $running);
}

sub volume_snapshot {
    my ($cfg, $volid, $snap) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    return $plugin->volume_snapshot($scfg, $storeid, $volname, $snap);
}

sub volume_rollback_is_possible {
    my ($cfg, $volid, $snap, $blockers) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    return $plugin->volume_rollback_is_possible($scfg, $storeid, $volname, $snap, $blockers);
}

sub volume_snapshot_rollback {
    my ($cfg, $volid, $snap) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    $plugin->volume_rollback_is_possible($scfg, $storeid, $volname, $snap);
    return $plugin->volume_snapshot_rollback($scfg, $storeid, $volname, $snap);
}

sub volume_snapshot_delete {
    my ($cfg, $volid, $snap, $running) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    return $plugin->volume_snapshot_delete($scfg, $storeid, $volname, $snap, $running);
}

sub volume_snapshot_info {
    my ($cfg, $volid) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    return $plugin->volume_snapshot_info($scfg, $storeid, $volname);
}

sub volume_has_feature {
    my ($cfg, $feature, $volid, $snap, $running, $opts) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    return $plugin->volume_has_feature($scfg, $feature, $storeid, $volname, $snap, $running, $opts);
}

sub volume_export {
    my ($cfg, $fh, $volid, $format, @rest) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    return $plugin->volume_export($scfg, $storeid, $fh, $volname, $format, @rest);
}

sub volume_import {
    my ($cfg, $fh, $volid, $format, @rest) = @_;
    my ($plugin, $scfg, $storeid, $volname) = _find($cfg, $volid);
    return $plugin->volume_import($scfg, $storeid, $fh, $volname, $format, @rest) // $volid;
}

1;
