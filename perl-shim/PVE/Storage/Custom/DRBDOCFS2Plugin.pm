package PVE::Storage::Custom::DRBDOCFS2Plugin;

# The storage type 'drbdocfs2' as Proxmox VE sees it: names, features and schema. What touches the
# disk is asked of the backend. Core Perl and PVE modules only, and nothing here may die at load: a
# plugin that does not load makes PVE drop its storages from storage.cfg.

use strict;
use warnings;

use PVE::Storage::Plugin;

use base qw(PVE::Storage::Plugin);

my $OLDEST_API = 9;
my $NEWEST_API = 15; # the newest one this was tested with

# Seconds to wait for the backend. PVE's cluster lock ends its holder after 60.
my %DEADLINE = (
    locked => 50,
    unlocked => 50,
    activate => 10,
    'bring-up' => 40, # from a booted node to the mount, which takes 10 to 20
    status => 2,
    hook => 5,
    qcow2 => 1800, # qemu-img at work, and no cluster lock held
);

my $VOLNAME_RE = qr!(?:\d+/[^/\s]+/)?\d+/[^/\s]+!;

# A mirror has the same content on both nodes by nature, so the type says it, not the user.
push @PVE::Storage::Plugin::SHARED_STORAGE, 'drbdocfs2'
    if !grep { $_ eq 'drbdocfs2' } @PVE::Storage::Plugin::SHARED_STORAGE;

# --- what the type is ----------------------------------------------------------------------------

sub type {
    return 'drbdocfs2';
}

# PVE refuses a plugin newer than itself, and warns about an older one at every command.
sub api {
    my $pve = do {
        local ($@, $SIG{__DIE__});
        eval { PVE::Storage::APIVER() }
    };
    return $NEWEST_API if !defined($pve) || $pve !~ m/^\d+$/ || $pve > $NEWEST_API;
    return $pve < $OLDEST_API ? $OLDEST_API : $pve;
}

sub plugindata {
    my %content = map { $_ => 1 } qw(images rootdir vztmpl iso backup snippets none);
    my $folders = do {
        local ($@, $SIG{__DIE__});
        eval { PVE::Storage::Plugin->get_vtype_subdirs() }
    };
    $content{import} = 1 if $folders && $folders->{import};
    return {
        content => [\%content, { images => 1, rootdir => 1 }],
        format => [{ raw => 1, qcow2 => 1 }, 'raw'],
        'sensitive-properties' => {},
    };
}

sub properties {
    return {
        'drbdocfs2-resource' => {
            description => "The DRBD resource the storage lies on.",
            type => 'string',
            pattern => '[a-zA-Z0-9][-a-zA-Z0-9_.+]{0,127}',
        },
        'drbdocfs2-volume' => {
            description => "The number of the volume within the DRBD resource.",
            type => 'integer',
            minimum => 0,
            maximum => 65535,
            default => 0,
        },
        'drbdocfs2-uuid' => {
            description => "The UUID of the OCFS2 file system: no other one is used. Recorded when"
                . " the storage is added while it is mounted.",
            type => 'string',
            pattern => '[0-9A-F]{32}',
        },
    };
}

# An option whose property this PVE does not define stops every PVE command, one of a former 'dir'
# section that is missing here is lost. All are optional: a section without a required one would
# make storage.cfg unwritable.
sub options {
    my @foreign = qw(
        nodes disable shared content content-dirs format preallocation bwlimit
        prune-backups max-protected-backups maxfiles
        is_mountpoint mkdir create-base-path create-subdirs snapshot-as-volume-chain
    );
    my $known = PVE::Storage::Plugin->private()->{propertyList};
    return {
        path => { fixed => 1 },
        'drbdocfs2-resource' => { optional => 1 },
        'drbdocfs2-volume' => { optional => 1 },
        'drbdocfs2-uuid' => { optional => 1 },
        map { $_ => { optional => 1 } } grep { exists $known->{$_} } @foreign,
    };
}

# --- the section in storage.cfg ------------------------------------------------------------------

# Runs for every section at every parse, too: what PVE's own 'dir' accepts must not die here.
sub check_config {
    my ($class, $section_id, $config, $create, $skip_schema_check) = @_;

    my $opts = $class->SUPER::check_config($section_id, $config, $create, $skip_schema_check);
    return $opts if !$create;
    die "illegal path for storage '$section_id': $opts->{path}."
        . " Write an absolute path of letters, digits and - _ . @ / only\n"
        if $opts->{path} !~ m!\A/[-/a-zA-Z0-9_.@]+\z!;
    require File::Spec;
    $opts->{path} = File::Spec->canonpath($opts->{path});
    # PVE takes both for a folder; the backend takes neither, and would say so only after the adding.
    die "illegal path for storage '$section_id': $opts->{path}."
        . " Write the mount point itself, without '..', and not the root folder\n"
        if $opts->{path} eq '/' || $opts->{path} =~ m!/\.\.(?:/|\z)!;
    return $opts;
}

sub on_add_hook {
    my ($class, $storeid, $scfg, %sensitive) = @_;

    _backend();
    PVE::Storage::DRBDOCFS2::Section::check_new($storeid, $scfg);

    # Not mounted yet is no error here; where it should be, PVE's activation says so next.
    if (!$scfg->{'drbdocfs2-uuid'} && PVE::Storage::DRBDOCFS2::Section::is_used_here($scfg)) {
        my $uuid = eval { _rpc($storeid, $scfg, 'get_identity', $DEADLINE{hook}) } // '';
        $scfg->{'drbdocfs2-uuid'} = $1 if $uuid =~ m/\A([0-9A-F]{32})\z/;
    }
    return;
}

# PVE 8 (API below 13): $update has the changed options only.
sub on_update_hook {
    my ($class, $storeid, $update, %sensitive) = @_;

    my $scfg = eval { PVE::Storage::config()->{ids}->{$storeid} } // {};
    return $class->on_update_hook_full($storeid, $scfg, $update, [], \%sensitive);
}

sub on_update_hook_full {
    my ($class, $storeid, $scfg, $update, $delete, $sensitive) = @_;

    _backend();
    PVE::Storage::DRBDOCFS2::Section::check_update($storeid, $scfg, $update, $delete);
    return;
}

# --- the storage ---------------------------------------------------------------------------------

sub get_identity {
    my ($class, $scfg, $storeid) = @_;
    return _rpc($storeid, $scfg, 'get_identity', $DEADLINE{activate});
}

# Folders are made by the backend, below the mount it has verified, never by path from here.
sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;

    my @folders = $class->_content_folders($storeid, $scfg);
    # One loop of pvestatd's serves all storages of the node: it joins what others started, and comes again.
    my $deadline = $0 =~ m/pvestatd/ ? $DEADLINE{status} : $DEADLINE{'bring-up'};
    _rpc($storeid, $scfg, 'activate_storage', $deadline, content_dirs => \@folders);
    return;
}

# The mount is not PVE's to end, and a storage must be removable while its mirror is down.
sub deactivate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;
    return;
}

sub status {
    my ($class, $storeid, $scfg, $cache) = @_;

    my $status = eval { _rpc($storeid, $scfg, 'status', $DEADLINE{status}) };
    return if ref($status) ne 'HASH' || !$status->{active};
    return (@{$status}{qw(total avail used)}, 1);
}

# The folder of a content type relative to the path.
sub _content_folder {
    my ($class, $scfg, $vtype) = @_;

    my $folder = ($scfg->{'content-dirs'} // {})->{$vtype}
        // PVE::Storage::Plugin->get_vtype_subdirs()->{$vtype};
    return join('/', grep { $_ ne '' } split(m!/!, $folder));
}

sub _content_folders {
    my ($class, $storeid, $scfg) = @_;

    my %content = %{ $scfg->{content} // {} };
    # Root file systems of containers are images here; their backups want a folder too.
    $content{images} = $content{backup} = 1 if delete $content{rootdir};

    my %owner;
    for my $vtype (sort grep { $content{$_} && $_ ne 'none' } keys %content) {
        my $folder = $class->_content_folder($scfg, $vtype);
        die "storage '$storeid' uses the folder '$folder' for both $owner{$folder} and $vtype."
            . " Change its content-dirs\n"
            if $owner{$folder};
        $owner{$folder} = $vtype;
    }
    return if !($scfg->{'create-subdirs'} // 1) || !($scfg->{mkdir} // 1);
    my @folders = sort keys %owner;
    return @folders;
}

# --- volumes: paths and names --------------------------------------------------------------------

# (path, vmid, vtype) or the path, by context: PVE counts on both.
sub filesystem_path {
    my ($class, $scfg, $volname, $snapname) = @_;

    my ($vtype, $name, $vmid, $format) = ($class->parse_volname($volname))[0, 1, 2, 6];
    return $class->SUPER::filesystem_path($scfg, $volname, $snapname) if $vtype ne 'images';

    my $path = $class->get_subdir($scfg, 'images') . "/$vmid";
    if (!defined($snapname) || $format eq 'qcow2') { # a qcow2 image keeps its snapshots inside
        $path .= "/$name";
    } elsif ($format eq 'raw') {
        die "'$snapname' is not a snapshot's name\n"
            if $snapname !~ m/\A[a-zA-Z_][a-zA-Z0-9_-]{0,79}\z/;
        $path .= "/.snapshots/$name/$snapname.raw";
    } else {
        die "can't snapshot images of format '$format'\n";
    }
    return wantarray ? ($path, $vmid, $vtype) : $path;
}

sub path {
    my ($class, $scfg, $volname, $storeid, $snapname) = @_;
    return $class->filesystem_path($scfg, $volname, $snapname);
}

# --- volumes: making and listing -----------------------------------------------------------------

sub alloc_image {
    my ($class, $storeid, $scfg, $vmid, $fmt, $name, $size) = @_;

    die "storage '$storeid' has no subvolumes: give the container's disk a size\n"
        if defined($fmt) && $fmt eq 'subvol';
    return _volname_rpc(
        $storeid, $scfg, 'alloc_image',
        vmid => int($vmid),
        format => $fmt,
        name => $name,
        size_kib => int($size) + ($size > int($size) ? 1 : 0), # some callers divide
    );
}

# Like PVE's base class, no more than a warning where there is no such image: a guest's 'unused0' that
# names one could not be removed otherwise.
sub free_image {
    my ($class, $storeid, $scfg, $volname, $is_base, $format) = @_;

    return $class->SUPER::free_image($storeid, $scfg, $volname, $is_base, $format)
        if !$class->_is_image($volname);
    die "cannot remove protected volume '$volname' on '$storeid'\n"
        if $class->get_volume_attribute($scfg, $storeid, $volname, 'protected');
    my $freed = _rpc(
        $storeid, $scfg, 'free_image', $DEADLINE{locked},
        volname => $volname,
        is_base => _boolean($is_base),
        missing_ok => _boolean(1),
    );
    warn "disk image '" . $class->path($scfg, $volname, $storeid) . "' does not exist\n"
        if defined($freed) && !$freed; # a backend from before an upgrade answers null
    return;
}

# $vollist, full volume IDs of any storage, makes PVE's base class forget $vmid.
sub list_images {
    my ($class, $storeid, $scfg, $vmid, $vollist, $cache) = @_;

    my $volids = $vollist && [grep { m/^\Q$storeid\E:/ } @{$vollist}];
    return [] if $volids && !@{$volids};
    my $images = _rpc(
        $storeid, $scfg, 'list_images', $DEADLINE{locked},
        vmid => defined($vmid) && !$volids ? int($vmid) : undef,
        volids => $volids,
    );
    die "storage '$storeid': the backend answered 'list_images' with what is not a list\n"
        if ref($images) ne 'ARRAY';
    for my $image (@{$images}) {
        ($image->{volid}) = ($image->{volid} // '') =~ m/\A(\Q$storeid\E:$VOLNAME_RE)\z/
            or die "storage '$storeid': the backend listed a volume with an impossible name\n";
        delete $image->{ctime} if !defined($image->{ctime});
    }
    return $images;
}

sub volume_size_info {
    my ($class, $scfg, $storeid, $volname, $timeout) = @_;

    return $class->SUPER::volume_size_info($scfg, $storeid, $volname, $timeout)
        if !$class->_is_image($volname);
    my $info = _hash_rpc(
        $storeid, $scfg, 'volume_size_info', $timeout || $DEADLINE{activate}, volname => $volname,
    );
    return wantarray ? @{$info}{qw(size format used parent ctime)} : $info->{size};
}

# --- volumes: changing ---------------------------------------------------------------------------

sub volume_resize {
    my ($class, $scfg, $storeid, $volname, $size, $running, $snapname) = @_;

    die "can't resize a snapshot: resize the disk itself\n" if $snapname;
    die "can't resize this image format\n" if $volname !~ m/\.(?:raw|qcow2)$/;
    return 1 if $running; # QEMU resizes the file it has open

    _rpc(
        $storeid, $scfg, 'volume_resize', $DEADLINE{unlocked},
        volname => $volname,
        size => int($size),
    );
    return;
}

sub create_base {
    my ($class, $storeid, $scfg, $volname) = @_;
    return _volname_rpc($storeid, $scfg, 'create_base', volname => $volname);
}

sub clone_image {
    my ($class, $scfg, $storeid, $volname, $vmid, $snap) = @_;

    return _volname_rpc(
        $storeid, $scfg, 'clone_image',
        volname => $volname,
        vmid => int($vmid),
        snap => $snap,
    );
}

# Without a target VMID, PVE::Storage passes the name of the base image, if any, in its place.
sub rename_volume {
    my ($class, $scfg, $storeid, $source_volname, $target_vmid, $target_volname) = @_;

    $target_vmid = ($class->parse_volname($source_volname))[2]
        if !defined($target_vmid) || $target_vmid !~ m/^\d+$/;
    my $volname = _volname_rpc(
        $storeid, $scfg, 'rename_volume',
        volname => $source_volname,
        target_vmid => int($target_vmid),
        target_name => $target_volname,
    );
    return "$storeid:$volname";
}

# --- volumes: in use -----------------------------------------------------------------------------

sub activate_volume {
    my ($class, $storeid, $scfg, $volname, $snapname, $cache, $hints) = @_;

    return $class->SUPER::activate_volume($storeid, $scfg, $volname, $snapname, $cache)
        if !$class->_is_image($volname);
    _rpc(
        $storeid, $scfg, 'activate_volume', $DEADLINE{activate},
        volname => $volname,
        snap => $snapname,
    );
    return 1;
}

sub deactivate_volume {
    my ($class, $storeid, $scfg, $volname, $snapname, $cache) = @_;
    return 1;
}

sub map_volume {
    my ($class, $storeid, $scfg, $volname, $snapname, $hints) = @_;
    return scalar($class->path($scfg, $volname, $storeid, $snapname));
}

sub unmap_volume {
    my ($class, $storeid, $scfg, $volname, $snapname) = @_;
    return 1;
}

# --- snapshots -----------------------------------------------------------------------------------

sub volume_snapshot {
    my ($class, $scfg, $storeid, $volname, $snap) = @_;
    return $class->_snapshot_rpc($storeid, $scfg, 'volume_snapshot', $volname, $snap);
}

sub volume_snapshot_rollback {
    my ($class, $scfg, $storeid, $volname, $snap) = @_;
    return $class->_snapshot_rpc($storeid, $scfg, 'volume_snapshot_rollback', $volname, $snap);
}

sub volume_snapshot_delete {
    my ($class, $scfg, $storeid, $volname, $snap, $running) = @_;

    return 1 if $running && $volname =~ m/\.qcow2$/; # QEMU has done it
    return $class->_snapshot_rpc($storeid, $scfg, 'volume_snapshot_delete', $volname, $snap);
}

# Any snapshot may be rolled back to: nothing is ever pushed to $blockers.
sub volume_rollback_is_possible {
    my ($class, $scfg, $storeid, $volname, $snap, $blockers) = @_;

    _rpc(
        $storeid, $scfg, 'volume_rollback_is_possible', $DEADLINE{unlocked},
        volname => $volname,
        snap => $snap,
    );
    return 1;
}

sub volume_snapshot_info {
    my ($class, $scfg, $storeid, $volname) = @_;
    return _hash_rpc(
        $storeid, $scfg, 'volume_snapshot_info', $DEADLINE{unlocked}, volname => $volname,
    );
}

# PVE 9 has it for volume chains; the base class would move our files behind the backend's back.
sub rename_snapshot {
    my ($class, $scfg, $storeid, $volname, $source_snap, $target_snap) = @_;
    die "storage '$storeid': snapshots cannot be renamed\n";
}

# Without it a running container's file system would be snapshotted unfrozen.
sub volume_snapshot_needs_fsfreeze {
    return 1;
}

# Who takes the snapshot of a running VM (API 12; PVE 8 decides the same by the name's ending).
sub volume_qemu_snapshot_method {
    my ($class, $storeid, $scfg, $volname) = @_;
    return ($class->parse_volname($volname))[6] eq 'qcow2' ? 'qemu' : 'storage';
}

# --- features ------------------------------------------------------------------------------------

my %FEATURES = (
    snapshot => {
        current => { raw => 1, qcow2 => 1 },
        snap => { raw => 1, qcow2 => 1 },
    },
    clone => {
        base => { raw => 1, qcow2 => 1 },
        current => { raw => 1, qcow2 => 1 }, # a stopped guest's
        snap => { raw => 1 },
    },
    copy => {
        base => { raw => 1, qcow2 => 1, vmdk => 1 },
        current => { raw => 1, qcow2 => 1, vmdk => 1 },
        snap => { raw => 1, qcow2 => 1 },
    },
    template => { current => { raw => 1, qcow2 => 1, vmdk => 1 } },
    sparseinit => {
        base => { raw => 1, qcow2 => 1, vmdk => 1 },
        current => { raw => 1, qcow2 => 1, vmdk => 1 },
    },
    rename => { current => { raw => 1, qcow2 => 1, vmdk => 1 } },
);

sub volume_has_feature {
    my ($class, $scfg, $feature, $storeid, $volname, $snapname, $running, $opts) = @_;

    my ($vtype, $is_base, $format) = ($class->parse_volname($volname))[0, 5, 6];
    return $class->SUPER::volume_has_feature(
        $scfg, $feature, $storeid, $volname, $snapname, $running, $opts,
    ) if $vtype ne 'images';

    my $state = $snapname ? 'snap' : $is_base ? 'base' : 'current';
    return 0 if !$FEATURES{$feature} || !$FEATURES{$feature}->{$state}->{$format};
    if ($feature eq 'clone') {
        return 0 if $running && $state eq 'current';
        my $wanted = ($opts // {})->{valid_target_formats};
        return 0 if $wanted && !grep { $_ eq $format } @{$wanted}; # a clone has its source's format
    }
    return 1;
}

# --- transfer ------------------------------------------------------------------------------------

# Streams carry their size in front. With snapshots means a qcow2 image as it is, without means its
# contents, or those of one snapshot; contents become a raw image again, nothing else.
sub volume_export_formats {
    my ($class, $scfg, $storeid, $volname, $snapshot, $base_snapshot, $with_snapshots) = @_;

    return $class->SUPER::volume_export_formats(
        $scfg, $storeid, $volname, $snapshot, $base_snapshot, $with_snapshots,
    ) if !$class->_is_transferred_by_us($volname);
    return if defined($base_snapshot);
    return ('raw+size') if !$with_snapshots;
    return if defined($snapshot) || ($class->parse_volname($volname))[6] ne 'qcow2';
    return ('qcow2+size');
}

sub volume_import_formats {
    my ($class, $scfg, $storeid, $volname, $snapshot, $base_snapshot, $with_snapshots) = @_;

    return $class->SUPER::volume_import_formats(
        $scfg, $storeid, $volname, $snapshot, $base_snapshot, $with_snapshots,
    ) if !$class->_is_transferred_by_us($volname);
    return if defined($base_snapshot);
    my $format = ($class->parse_volname($volname))[6];
    return if $format ne ($with_snapshots ? 'qcow2' : 'raw');
    return ("$format+size");
}

sub volume_export {
    my (
        $class, $scfg, $storeid, $fh, $volname, $format, $snapshot, $base_snapshot, $with_snapshots,
    ) = @_;

    return $class->SUPER::volume_export(
        $scfg, $storeid, $fh, $volname, $format, $snapshot, $base_snapshot, $with_snapshots,
    ) if !$class->_is_transferred_by_us($volname);

    my @formats = $class->volume_export_formats(
        $scfg, $storeid, $volname, $snapshot, $base_snapshot, $with_snapshots,
    );
    die "volume export format '$format' not available for '$storeid:$volname'\n"
        if !grep { $_ eq $format } @formats;
    _backend();
    my $params = {
        storage => _storage($storeid, $scfg),
        volname => $volname,
        format => $format,
        snap => $snapshot,
        with_snapshots => _boolean($with_snapshots),
    };
    PVE::Storage::DRBDOCFS2::Client::stream('volume_export', $params, out => $fh);
    return;
}

sub volume_import {
    my (
        $class, $scfg, $storeid, $fh, $volname, $format, $snapshot, $base_snapshot, $with_snapshots,
        $allow_rename,
    ) = @_;

    return $class->SUPER::volume_import(
        $scfg, $storeid, $fh, $volname, $format, $snapshot, $base_snapshot, $with_snapshots,
        $allow_rename,
    ) if !$class->_is_transferred_by_us($volname);

    my @formats = $class->volume_import_formats(
        $scfg, $storeid, $volname, $snapshot, $base_snapshot, $with_snapshots,
    );
    die "volume import format '$format' not available for '$storeid:$volname'\n"
        if !grep { $_ eq $format } @formats;
    _backend();
    my $params = {
        storage => _storage($storeid, $scfg),
        volname => $volname,
        format => $format,
        with_snapshots => _boolean($with_snapshots),
        allow_rename => _boolean($allow_rename),
    };
    my $new = PVE::Storage::DRBDOCFS2::Client::stream('volume_import', $params, in => $fh);
    return "$storeid:" . _clean_volname($storeid, $new);
}

# --- backups and imports: PVE's own code for folders ---------------------------------------------

sub get_volume_attribute {
    require PVE::Storage::DirPlugin;
    return PVE::Storage::DirPlugin::get_volume_attribute(@_);
}

sub update_volume_attribute {
    require PVE::Storage::DirPlugin;
    return PVE::Storage::DirPlugin::update_volume_attribute(@_);
}

sub get_volume_notes {
    require PVE::Storage::DirPlugin;
    return PVE::Storage::DirPlugin::get_volume_notes(@_);
}

sub update_volume_notes {
    require PVE::Storage::DirPlugin;
    return PVE::Storage::DirPlugin::update_volume_notes(@_);
}

sub get_import_metadata {
    require PVE::Storage::DirPlugin;
    return PVE::Storage::DirPlugin::get_import_metadata(@_);
}

# --- the backend ---------------------------------------------------------------------------------

# Loaded when first needed: a broken installation is an error of a call, never of the load.
sub _backend {
    eval {
        require PVE::Storage::DRBDOCFS2::Section;
        require PVE::Storage::DRBDOCFS2::Client;
        1;
    } or die "a part of the package pvedrbdstor does not load: reinstall the package. $@";
    return;
}

# The 'storage' object of every request.
sub _storage {
    my ($storeid, $scfg) = @_;

    PVE::Storage::DRBDOCFS2::Section::demand_resource($storeid, $scfg);
    return {
        id => $storeid,
        path => $scfg->{path},
        resource => $scfg->{'drbdocfs2-resource'},
        volume => int($scfg->{'drbdocfs2-volume'} || 0),
        uuid => $scfg->{'drbdocfs2-uuid'},
        images_dir => __PACKAGE__->_content_folder($scfg, 'images'),
        preallocation => $scfg->{preallocation},
    };
}

sub _rpc {
    my ($storeid, $scfg, $method, $deadline, %params) = @_;

    _backend();
    return PVE::Storage::DRBDOCFS2::Client::call(
        $method, { storage => _storage($storeid, $scfg), %params }, $deadline,
    );
}

sub _hash_rpc {
    my ($storeid, $scfg, $method, $deadline, %params) = @_;

    my $result = _rpc($storeid, $scfg, $method, $deadline, %params);
    die "storage '$storeid': the answer to '$method' is not what it should be\n"
        if ref($result) ne 'HASH';
    return $result;
}

# A request under the cluster lock that answers with the name of a volume.
sub _volname_rpc {
    my ($storeid, $scfg, $method, %params) = @_;
    return _clean_volname($storeid, _rpc($storeid, $scfg, $method, $DEADLINE{locked}, %params));
}

# Under perl -T what came through a socket may not name a file; this is where it may.
sub _clean_volname {
    my ($storeid, $volname) = @_;

    my ($clean) = ($volname // '') =~ m/\A($VOLNAME_RE)\z/;
    die "storage '$storeid': the backend answered with an impossible volume name\n"
        if !defined($clean);
    return $clean;
}

# qemu-img works through the whole of a qcow2 image; a raw one is a matter of milliseconds.
sub _snapshot_rpc {
    my ($class, $storeid, $scfg, $method, $volname, $snap) = @_;

    my $format = ($class->parse_volname($volname))[6];
    my $deadline = $format eq 'qcow2' ? $DEADLINE{qcow2} : $DEADLINE{unlocked};
    _rpc($storeid, $scfg, $method, $deadline, volname => $volname, snap => $snap);
    return;
}

sub _boolean {
    my ($value) = @_;
    return $value ? \1 : \0;
}

sub _is_image {
    my ($class, $volname) = @_;
    return ($class->parse_volname($volname))[0] eq 'images';
}

# Other content, and vmdk images that a 'dir' storage left, go PVE's own way.
sub _is_transferred_by_us {
    my ($class, $volname) = @_;

    my ($vtype, $format) = ($class->parse_volname($volname))[0, 6];
    return $vtype eq 'images' && ($format eq 'raw' || $format eq 'qcow2');
}

1;
