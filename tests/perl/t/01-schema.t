#!/usr/bin/perl -T

# "A bad property or option kills all of PVE": own properties are prefixed and all optional, and a
# foreign property is an option only if this PVE defines it.

use strict;
use warnings;

use Test::More;

use DRBDOCFS2Test;

my $plugin = plugin();
my $base = 'PVE::Storage::Plugin';
my $known = $base->private()->{propertyList};

sub parse {
    my ($text) = @_;
    my @warnings;
    local $SIG{__WARN__} = sub { push @warnings, $_[0] };
    my $cfg = $base->parse_config('storage.cfg', $text);
    return ($cfg, \@warnings);
}

subtest 'properties are ours by name' => sub {
    my @names = sort keys %{ $plugin->properties() };
    is_deeply(\@names, [map { "drbdocfs2-$_" } qw(resource uuid volume)], 'three of them');
    is($plugin->properties()->{'drbdocfs2-volume'}->{default}, 0, 'volume 0 unless said');
};

subtest 'options' => sub {
    my $options = $plugin->options();
    is_deeply([grep { !exists $known->{$_} } keys %{$options}], [], 'each is a defined property');
    is_deeply(
        [grep { !$options->{$_}->{optional} } keys %{$options}], ['path'],
        'all but path are optional: a required one would make storage.cfg unwritable'
    );
    ok($options->{path}->{fixed}, 'path is fixed');

    # "accept every DirPlugin option that this PVE defines": others vanish at the next write.
    is_deeply(
        [grep { !$options->{$_} } keys %{ PVE::Storage::DirPlugin->options() }], [],
        "every option of a former 'dir' section is accepted"
    );

    for my $gone (qw(snapshot-as-volume-chain maxfiles create-subdirs bwlimit)) {
        local $known->{$gone} = 1;
        ok($plugin->options()->{$gone}, "'$gone' where PVE defines it");
        delete $known->{$gone};
        ok(!$plugin->options()->{$gone}, "no '$gone' where PVE does not");
    }
};

subtest 'plugindata' => sub {
    my $data = $plugin->plugindata();
    is_deeply($data->{format}, [{ raw => 1, qcow2 => 1 }, 'raw'], 'raw and qcow2, raw first');
    is_deeply($data->{content}->[1], { images => 1, rootdir => 1 }, 'default content');
    is_deeply(
        [sort grep { $_ ne 'import' } keys %{ $data->{content}->[0] }],
        [qw(backup images iso none rootdir snippets vztmpl)], 'allowed content'
    );
    is_deeply($data->{'sensitive-properties'}, {}, "no secrets, said explicitly");

    my $import = $base->get_vtype_subdirs()->{import} ? 1 : 0;
    is($data->{content}->[0]->{import} ? 1 : 0, $import, "'import' only where this PVE has it");
};

subtest 'a section comes back as it was written' => sub {
    my $text = "drbdocfs2: ha\n\tpath /mnt/pve/ha\n\tcontent images,rootdir,iso\n"
        . "\tcontent-dirs images=vm/disks\n\tdrbdocfs2-resource r0\n\tdrbdocfs2-volume 1\n"
        . "\tdrbdocfs2-uuid 0123456789ABCDEF0123456789ABCDEF\n\tnodes pve1,pve2\n"
        . "\tpreallocation falloc\n\tprune-backups keep-last=3\n\tis_mountpoint 1\n\n";
    my ($cfg, $warnings) = parse($text);
    is_deeply($warnings, [], 'without a warning');
    my $scfg = $cfg->{ids}->{ha};
    is($scfg->{shared}, 1, 'shared without saying so');
    is($scfg->{'drbdocfs2-resource'}, 'r0', 'resource');
    is_deeply($scfg->{'content-dirs'}, { images => 'vm/disks' }, 'content-dirs');

    my $written = $base->write_config('storage.cfg', $cfg);
    my ($again, $more) = parse($written);
    is_deeply($again->{ids}->{ha}, $scfg, 'written and parsed again');
    is_deeply($more, [], 'without a warning');
};

subtest 'a section without its resource stays in the file' => sub {
    my ($cfg, $warnings) = parse("drbdocfs2: ha\n\tpath /mnt/pve/ha\n\n");
    is_deeply($warnings, [], 'without a warning');
    like($base->write_config('storage.cfg', $cfg), qr/^drbdocfs2: ha$/m, 'and is written');
};

subtest 'path: what PVE accepts for a folder, in canonical form' => sub {
    my $check = sub { $plugin->check_config('ha', { path => $_[0] }, 1, 1)->{path} };
    is($check->('/mnt/pve/ha/'), '/mnt/pve/ha', 'no slash at the end');
    is($check->('/mnt//pve/./ha'), '/mnt/pve/ha', 'no detours');
    for my $bad ('/mnt/a b', '/mnt/x;rm', "/mnt/x\ny", 'mnt/x', '/mnt/(x)') {
        like(dies(sub { $check->($bad) }), qr/path|line feed/, 'refused: ' . $bad =~ s/\n/\\n/r);
    }
    for my $bad ('//', '/./', '/mnt/../x', '/mnt/..') {
        like(dies(sub { $check->($bad) }), qr/Write the mount point itself/, "refused: $bad");
    }
    is($check->('/..a/b..'), '/..a/b..', 'dots in a name are dots in a name');
    like(
        dies(sub { $plugin->check_config('ha', { path => '/x' }, 0, 1) }), qr/fixed/,
        'and it never changes'
    );
};

subtest 'values' => sub {
    my $check = sub {
        my ($key, $value) = @_;
        return dies(sub { $plugin->check_value('drbdocfs2', $key, $value, 'ha') });
    };
    for my $good (
        ['drbdocfs2-resource', 'r0'],
        ['drbdocfs2-resource', '0.vm-data_1'],
        ['drbdocfs2-volume', 7],
        ['drbdocfs2-uuid', 'A' x 32],
    ) {
        is($check->(@{$good}), undef, "$good->[0] $good->[1]");
    }
    for my $bad (
        ['drbdocfs2-resource', '../r0'],
        ['drbdocfs2-resource', '-r0'],
        ['drbdocfs2-resource', 'r0;x'],
        ['drbdocfs2-volume', -1],
        ['drbdocfs2-volume', 'x'],
        ['drbdocfs2-volume', 65536],
        ['drbdocfs2-uuid', 'a' x 32],
        ['drbdocfs2-uuid', 'A' x 31],
    ) {
        ok($check->(@{$bad}), "not $bad->[0] $bad->[1]");
    }
};

done_testing();
