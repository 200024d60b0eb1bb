#!/usr/bin/perl -T

# Every error of the backend becomes die "message\n", which PVE shows verbatim; no answer, however
# wrong, becomes a volume's name.

use strict;
use warnings;

use Test::More;

use DRBDOCFS2Test;

my $plugin = plugin();
my $scfg = scfg();
my $raw = '100/vm-100-disk-0.raw';

my %call = (
    activate_storage => sub { $plugin->activate_storage('ha', $scfg, {}) },
    get_identity => sub { $plugin->get_identity($scfg, 'ha') },
    alloc_image => sub { $plugin->alloc_image('ha', $scfg, 100, 'raw', undef, 4) },
    free_image => sub { $plugin->free_image('ha', $scfg, $raw) },
    list_images => sub { $plugin->list_images('ha', $scfg) },
    volume_size_info => sub { $plugin->volume_size_info($scfg, 'ha', $raw) },
    volume_resize => sub { $plugin->volume_resize($scfg, 'ha', $raw, 4096, 0) },
    create_base => sub { $plugin->create_base('ha', $scfg, $raw) },
    clone_image => sub { $plugin->clone_image($scfg, 'ha', $raw, 101) },
    rename_volume => sub { $plugin->rename_volume($scfg, 'ha', $raw, 101) },
    volume_snapshot => sub { $plugin->volume_snapshot($scfg, 'ha', $raw, 's1') },
    volume_snapshot_rollback => sub { $plugin->volume_snapshot_rollback($scfg, 'ha', $raw, 's1') },
    volume_snapshot_delete => sub { $plugin->volume_snapshot_delete($scfg, 'ha', $raw, 's1') },
    volume_rollback_is_possible =>
        sub { $plugin->volume_rollback_is_possible($scfg, 'ha', $raw, 's1') },
    volume_snapshot_info => sub { $plugin->volume_snapshot_info($scfg, 'ha', $raw) },
    activate_volume => sub { $plugin->activate_volume('ha', $scfg, $raw) },
);

subtest 'the message, and nothing but the message' => sub {
    my $backend = backend('*' => DRBDOCFS2Test::error(20, 'VolumeMissing', "It is not there.\n\n"));
    for my $method (sort keys %call) {
        is(dies($call{$method}), "It is not there.\n", $method);
    }
};

subtest 'status never dies: the storage is inactive' => sub {
    for my $answer (
        DRBDOCFS2Test::error(40, 'NotMounted', 'Nothing is mounted.'),
        undef, [], 'up', {}, { total => 1, avail => 1, used => 1, active => JSON::false },
    ) {
        my $backend = backend(status => $answer);
        is_deeply([$plugin->status('ha', $scfg, {})], [], 'list');
        is(scalar($plugin->status('ha', $scfg, {})), undef, 'scalar');
    }
};

subtest 'an error without a message still has one' => sub {
    my $backend = backend('*' => bless({ error => { code => 1 } }, 'Answer'));
    like(
        dies($call{alloc_image}), qr/^'alloc_image' failed without a message.*\n\z/,
        'with a remedy'
    );
};

subtest 'JSON-RPC\'s own errors have no id' => sub {
    my $backend = backend(
        '*' =>
            bless(
            { id => undef, error => { code => -32600, message => 'Invalid Request' } }, 'Answer'
            )
    );
    is(dies($call{alloc_image}), "Invalid Request\n", 'and are shown');
};

subtest 'volume names are checked before anything is done with them' => sub {
    for my $bad (
        undef, '', '..', '../../etc/passwd', "$raw\n", '/etc/passwd', 'vm-100-disk-0.raw',
        '100/a b.raw',
        '100/../x.raw/y', [], {}, '100/',
    ) {
        my $backend = backend('*' => $bad);
        for my $method (qw(alloc_image create_base clone_image rename_volume)) {
            like(
                dies($call{$method}), qr/impossible volume name\n\z/,
                "$method: " . ($bad // 'null') =~ s/\n/\\n/r
            );
        }
    }
    for my $bad ('ha2:100/x.raw', '100/x.raw', "ha:$raw\n", 'ha:../x', undef) {
        my $backend = backend('*' => [{ volid => $bad }]);
        like(
            dies($call{list_images}), qr/impossible name\n\z/,
            'list: ' . ($bad // 'null') =~ s/\n/\\n/r
        );
    }
};

subtest 'an answer of the wrong kind is an error, not a crash' => sub {
    for my $odd (undef, 7, 'x', {}) {
        my $backend = backend('*' => $odd);
        like(dies($call{list_images}), qr/not a list.*\n\z/, 'list_images');
    }
    for my $odd (undef, 7, 'x', []) {
        my $backend = backend('*' => $odd);
        like(dies($call{volume_size_info}), qr/not what it should be\n\z/, 'volume_size_info');
        like(
            dies($call{volume_snapshot_info}), qr/not what it should be\n\z/,
            'volume_snapshot_info'
        );
    }
};

done_testing();
