#!/usr/bin/perl -T

# ISO images, templates, backups: PVE's own code for folders, since $scfg->{path} is set. Notes and
# protection: "the base does NOT implement them for backups; delegate to PVE::Storage::DirPlugin".

use strict;
use warnings;

use Test::More;

use DRBDOCFS2Test;

my $plugin = plugin();
my $dir = temp_dir();
my $scfg = scfg(path => "$dir", content => { images => 1, backup => 1, iso => 1 });
my $backup = 'backup/vzdump-qemu-100-2026_01_02-03_04_05.vma.zst';
my $raw = '100/vm-100-disk-0.raw';
my $backend = backend('*' => undef);

sub touch {
    my ($file) = @_;
    open(my $fh, '>', $file) or die "cannot write $file: $!";
    print {$fh} 'content.' x 64; # 512 bytes: qemu-img knows no less
    close($fh) or die "cannot write $file: $!";
    return;
}

for my $folder ('dump', 'template', 'template/iso', 'images', 'images/100') {
    mkdir("$dir/$folder") or die "cannot make $folder: $!";
}
touch("$dir/dump/" . $backup =~ s!.*/!!r);
touch("$dir/template/iso/debian.iso");

subtest 'notes of a backup' => sub {
    is($plugin->get_volume_attribute($scfg, 'ha', $backup, 'notes'), '', 'none');
    $plugin->update_volume_attribute($scfg, 'ha', $backup, 'notes', 'before the upgrade');
    is(
        $plugin->get_volume_attribute($scfg, 'ha', $backup, 'notes'), 'before the upgrade',
        'written'
    );
    is(
        $plugin->get_volume_notes($scfg, 'ha', $backup), 'before the upgrade',
        "the old method's too"
    );
    $plugin->update_volume_notes($scfg, 'ha', $backup, 'changed');
    is($plugin->get_volume_attribute($scfg, 'ha', $backup, 'notes'), 'changed', 'both ways');
    is($plugin->get_volume_attribute($scfg, 'ha', $raw, 'notes'), undef, 'an image has none');
};

subtest 'protection of a backup' => sub {
    is($plugin->get_volume_attribute($scfg, 'ha', $backup, 'protected'), 0, 'off');
    $plugin->update_volume_attribute($scfg, 'ha', $backup, 'protected', 1);
    is($plugin->get_volume_attribute($scfg, 'ha', $backup, 'protected'), 1, 'on');
    $plugin->update_volume_attribute($scfg, 'ha', $backup, 'protected', 0);
    is($plugin->get_volume_attribute($scfg, 'ha', $backup, 'protected'), 0, 'off again');
    is($plugin->get_volume_attribute($scfg, 'ha', $raw, 'protected'), undef, 'an image has none');
    ok(
        dies(sub { $plugin->update_volume_attribute($scfg, 'ha', $raw, 'protected', 1) }),
        'and gets none'
    );
};

is($plugin->volume_size_info($scfg, 'ha', 'iso/debian.iso', 5), 512, 'size of an ISO image');
is(
    dies(sub { $plugin->activate_volume('ha', $scfg, 'iso/debian.iso', undef, {}) }), undef,
    'its activation'
);
like(
    dies(sub { $plugin->activate_volume('ha', $scfg, 'iso/missing.iso', undef, {}) }),
    qr/does not exist/, 'of a missing one'
);
is(
    dies(sub { $plugin->free_image('ha', $scfg, 'iso/debian.iso', undef, 'raw') }), undef,
    'its removal'
);
ok(!-e "$dir/template/iso/debian.iso", '... is real');
is($backend->requests(), undef, 'the backend was asked for none of this');

# "free_image ... honour `protected`"
subtest 'a protected volume is not freed' => sub {
    no warnings 'redefine'; ## no critic (ProhibitNoWarnings)
    local *PVE::Storage::Custom::DRBDOCFS2Plugin::get_volume_attribute =
        sub { return $_[4] eq 'protected' };
    like(
        dies(sub { $plugin->free_image('ha', $scfg, $raw) }),
        qr/^cannot remove protected volume '$raw' on 'ha'\n\z/, 'it says so'
    );
    is($backend->requests(), undef, 'and the backend is not asked');
};

SKIP: {
    skip "this PVE has no import of OVA and OVF files: no get_import_metadata in its 'dir' type", 1
        if !PVE::Storage::DirPlugin->can('get_import_metadata');
    no warnings 'redefine'; ## no critic (ProhibitNoWarnings)
    my @seen;
    local *PVE::Storage::DirPlugin::get_import_metadata =
        sub { @seen = @_; return { type => 'vm' } };
    $plugin->get_import_metadata($scfg, 'import/vm.ova', 'ha');
    is_deeply(
        \@seen, [$plugin, $scfg, 'import/vm.ova', 'ha'],
        "get_import_metadata is the 'dir' type's"
    );
}

done_testing();
