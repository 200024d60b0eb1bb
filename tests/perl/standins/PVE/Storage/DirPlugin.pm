package PVE::Storage::DirPlugin;

# Stand-in: the 'dir' type, for its properties and its notes and protection of backups.

use strict;
use warnings;

use PVE::Storage::Plugin;

use base qw(PVE::Storage::Plugin);

sub type { return 'dir' }

sub plugindata {
    my %content = map { $_ => 1 } qw(images rootdir vztmpl iso backup snippets none import);
    return {
        content => [\%content, { images => 1, rootdir => 1 }],
        format => [{ raw => 1, qcow2 => 1, vmdk => 1, subvol => 1 }, 'raw'],
        'sensitive-properties' => {},
    };
}

sub properties {
    return {
        path => { type => 'string' },
        mkdir => { type => 'boolean' },
        'create-base-path' => { type => 'boolean' },
        'create-subdirs' => { type => 'boolean' },
        is_mountpoint => { type => 'string' },
        bwlimit => { type => 'string' },
    };
}

sub options {
    my ($class) = @_;
    my %known = map { $_ => { optional => 1 } } qw(
        nodes shared disable content content-dirs format preallocation prune-backups
        max-protected-backups mkdir create-base-path create-subdirs is_mountpoint bwlimit
        snapshot-as-volume-chain
    );
    my $properties = $class->private()->{propertyList};
    return {
        path => { fixed => 1 },
        map { $_ => $known{$_} } grep { $properties->{$_} } keys %known
    };
}

my $protection_of = sub {
    my ($class, $scfg, $volname) = @_;
    return scalar($class->filesystem_path($scfg, $volname)) . '.protected';
};

sub get_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute) = @_;
    return if ($class->parse_volname($volname))[0] ne 'backup';
    return -e $protection_of->($class, $scfg, $volname) ? 1 : 0 if $attribute eq 'protected';
    return get_volume_notes($class, $scfg, $storeid, $volname) if $attribute eq 'notes';
    return;
}

sub update_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute, $value) = @_;
    die "only backups support attribute '$attribute'\n"
        if ($class->parse_volname($volname))[0] ne 'backup';
    return update_volume_notes($class, $scfg, $storeid, $volname, $value) if $attribute eq 'notes';
    my $path = $protection_of->($class, $scfg, $volname);
    if (!$value) {
        unlink($path);
        return;
    }
    open(my $fh, '>', $path) or die "cannot write '$path': $!\n";
    close($fh) or die "cannot write '$path': $!\n";
    return;
}

sub get_volume_notes {
    my ($class, $scfg, $storeid, $volname) = @_;
    open(my $fh, '<', $class->filesystem_path($scfg, $volname) . '.notes') or return '';
    my $notes = do { local $/ = undef; readline($fh) };
    close($fh) or die "cannot read the notes: $!\n";
    return $notes;
}

sub update_volume_notes {
    my ($class, $scfg, $storeid, $volname, $notes) = @_;
    my $path = $class->filesystem_path($scfg, $volname) . '.notes';
    open(my $fh, '>', $path) or die "cannot write '$path': $!\n";
    print {$fh} $notes;
    close($fh) or die "cannot write '$path': $!\n";
    return;
}

sub get_import_metadata {
    my ($class, $scfg, $volname, $storeid) = @_;
    return { source => $volname, type => 'vm' };
}

1;
