#!/usr/bin/perl -T

# on_add_hook and on_update_hook*: on the calling node only, under the storage.cfg lock, so quick;
# "check the local DRBD resource only if this node is listed"; what they die with is shown verbatim.

use strict;
use warnings;

use Test::More;

use DRBDOCFS2Test;

my $plugin = plugin();
my $uuid = '0123456789ABCDEF0123456789ABCDEF';
my %config;
{
    no warnings 'redefine'; ## no critic (ProhibitNoWarnings)
    *PVE::Storage::config = sub { return { ids => {%config} } };
}

subtest 'the resource is demanded' => sub {
    my $backend = backend('*' => $uuid);
    for my $missing (undef, '') {
        like(
            dies(sub { $plugin->on_add_hook('ha', scfg('drbdocfs2-resource' => $missing)) }),
            qr/give --drbdocfs2-resource NAME .*\n\z/, 'with what to give'
        );
    }
    is($backend->requests(), undef, 'nobody was asked');
};

subtest 'a resource by whose name every mirror would be meant is refused' => sub {
    my $backend = backend('*' => $uuid);
    for my $name ('all', '0', '12') {
        my $bad = scfg('drbdocfs2-resource' => $name);
        my $words = qr/'$name' is a name that DRBD's programs take .* another name\n\z/;
        like(dies(sub { $plugin->on_add_hook('ha', $bad) }), $words, "$name at add");
        my $update = sub {
            my ($scfg, $changed) = @_;
            return dies(sub { $plugin->on_update_hook_full('ha', $scfg, $changed, [], {}) });
        };
        like($update->(scfg(), { 'drbdocfs2-resource' => $name }), $words, "$name at update");
        is($update->($bad, { disable => 1 }), undef, "a section with $name may still be disabled");
        is($update->($bad, { 'drbdocfs2-resource' => 'r1' }), undef, "$name may be changed");
        like(dies(sub { $plugin->activate_storage('ha', $bad, {}) }), $words, "$name is not used");
    }
    is($backend->requests(), undef, 'nobody was asked');
};

subtest 'volume chains are refused, with what to do' => sub {
    my $backend = backend('*' => $uuid);
    my $chain = scfg('snapshot-as-volume-chain' => 1);
    like(dies(sub { $plugin->on_add_hook('ha', $chain) }), qr/Leave that option out\n\z/, 'at add');
    like(
        dies(
            sub {
                $plugin->on_update_hook_full(
                    'ha', scfg(), { 'snapshot-as-volume-chain' => 1 }, [],
                    {}
                );
            }
        ),
        qr/Leave that option out\n\z/,
        'at update',
    );
    is(
        dies(sub { $plugin->on_add_hook('ha', scfg('snapshot-as-volume-chain' => 0)) }), undef,
        'saying no is fine'
    );
};

subtest 'the UUID is recorded where the mirror is mounted' => sub {
    my $backend = backend(get_identity => $uuid);
    my $scfg = scfg();
    is($plugin->on_add_hook('ha', $scfg), undef, 'returns nothing to show');
    is($scfg->{'drbdocfs2-uuid'}, $uuid, 'in the section');
    is(($backend->requests())[0]->{method}, 'get_identity', 'asked once');

    for my $quiet (
        ['on another node', nodes => { pve2 => 1 }],
        ['on another node, as text', nodes => 'pve2,pve3'],
        ['when disabled', disable => 1],
        ['when given', 'drbdocfs2-uuid' => 'F' x 32],
    ) {
        my ($case, %change) = @{$quiet};
        $scfg = scfg(%change);
        $plugin->on_add_hook('ha', $scfg);
        is($scfg->{'drbdocfs2-uuid'}, $change{'drbdocfs2-uuid'}, "untouched $case");
        is($backend->requests(), undef, "and nobody asked $case");
    }
    $plugin->on_add_hook('ha', $scfg = scfg(nodes => {}));
    is($scfg->{'drbdocfs2-uuid'}, $uuid, 'when an empty list means all nodes');
    $plugin->on_add_hook('ha', $scfg = scfg(nodes => { pve1 => 1 }));
    is($scfg->{'drbdocfs2-uuid'}, $uuid, 'when this node is listed');
};

subtest 'a storage may be added before it is mounted' => sub {
    my $backend = backend('*' => DRBDOCFS2Test::error(40, 'NotMounted', 'nothing is mounted.'));
    my $scfg = scfg();
    is(dies(sub { $plugin->on_add_hook('ha', $scfg) }), undef, 'without complaint');
    ok(!exists $scfg->{'drbdocfs2-uuid'}, 'and without a UUID');
};

subtest 'a UUID that is none is not recorded' => sub {
    for my $odd ('x', lc($uuid), "$uuid\n", 7, {}, undef) {
        my $backend = backend('*' => $odd);
        my $scfg = scfg();
        $plugin->on_add_hook('ha', $scfg);
        ok(!exists $scfg->{'drbdocfs2-uuid'}, 'not ' . ($odd // 'null'));
    }
};

subtest 'two storages on one mirror are refused' => sub {
    my $backend = backend('*' => $uuid);
    my $add = sub {
        my %change = @_;
        return dies(sub { $plugin->on_add_hook('new', scfg(%change)) });
    };

    %config =
        (old => scfg(nodes => { pve1 => 1, pve2 => 1 }), local => { type => 'dir', path => '/x' });
    like($add->(), qr/'old' already lies on \/mnt\/pve\/ha\b/, 'the same path');
    like(
        $add->(path => '/mnt/b'), qr/'old' already lies on DRBD resource 'r0' volume 0/,
        'resource'
    );
    is($add->(path => '/mnt/b', 'drbdocfs2-volume' => 1), undef, 'another volume of it is fine');
    is($add->(path => '/mnt/b', 'drbdocfs2-resource' => 'r1'), undef, 'so is another resource');
    is($add->(nodes => { pve3 => 1 }), undef, 'and the same names on other nodes');
    %config = (new => scfg());
    is($add->(), undef, 'a storage is not its own rival');

    no warnings 'redefine'; ## no critic (ProhibitNoWarnings)
    local *PVE::Storage::config = sub { die "no pmxcfs\n" };
    is($add->(), undef, 'not knowing the others is no reason to refuse');
};

subtest 'updates' => sub {
    %config = (ha => scfg(), other => scfg(path => '/mnt/o', 'drbdocfs2-resource' => 'r1'));
    my $full = sub {
        my ($update, $delete) = @_;
        return dies(sub { $plugin->on_update_hook_full('ha', $config{ha}, $update, $delete, {}) });
    };
    is($full->({ content => { images => 1 } }, []), undef, 'others may change');
    is($full->({ 'drbdocfs2-resource' => 'r2' }, undef), undef, 'the resource may be renamed');
    like(
        $full->({ 'drbdocfs2-resource' => 'r1' }, []), qr/'other' already lies/,
        'not to a used one'
    );
    like($full->({}, ['drbdocfs2-resource']), qr/give --drbdocfs2-resource/, 'nor be removed');

    # PVE 8 knows this one only, with the changed options.
    my $old = sub {
        my ($update) = @_;
        return dies(sub { $plugin->on_update_hook('ha', $update) });
    };
    is($old->({ 'drbdocfs2-resource' => 'r2' }), undef, 'PVE 8: renamed');
    like(
        $old->({ 'drbdocfs2-resource' => 'r1' }), qr/'other' already lies/,
        'PVE 8: not to a used one'
    );
    like($old->({ 'snapshot-as-volume-chain' => 1 }), qr/Leave that option out/, 'PVE 8: no chain');

    %config = (ha => scfg(nodes => { pve1 => 1 }), other => scfg(nodes => { pve2 => 1 }));
    like($full->({}, ['nodes']), qr/'other' already lies/, 'all nodes are more than its own');
    for my $all ({}, '') {
        like(
            $full->({ nodes => $all }, []), qr/'other' already lies/,
            "as PVE's GUI says it: with an empty list"
        );
    }

    # The GUI sends the options that stay as they are, too.
    %config = (ha => scfg(), other => scfg(path => '/mnt/o'));
    my %same = ('drbdocfs2-resource' => 'r0', nodes => {});
    is($full->({ %same, disable => 1 }, []), undef, 'an old conflict may be disabled');
    my %unnamed = ('drbdocfs2-resource' => undef);
    %config = (ha => scfg(%unnamed), other => scfg(%unnamed, path => '/mnt/o'));
    is(
        $full->({ nodes => { pve1 => 1 } }, []), undef,
        'two that name no resource are not one mirror'
    );

    %config = (ha => scfg('drbdocfs2-volume' => 1), other => scfg(path => '/mnt/o'));
    like($full->({}, ['drbdocfs2-volume']), qr/'other' already lies/, 'no volume is volume 0');
    is($full->({}, ['content']), undef, 'what has nothing to do with it is not checked');
};

done_testing();
