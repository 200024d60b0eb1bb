#!/usr/bin/perl -T

# `pvesm add|set|remove` as PVE's own API module does them: schema, check_config, hooks, activation,
# storage.cfg. Only the cluster file system is replaced, by a text in memory.

use strict;
use warnings;

use Test::More;

use DRBDOCFS2Test;

plan skip_all => "no PVE::API2::Storage::Config: only a real PVE has it"
    if !eval { require PVE::API2::Storage::Config; require PVE::RPCEnvironment; 1 };

my $uuid = '0123456789ABCDEF0123456789ABCDEF';
my $text = '';
{
    no warnings qw(redefine once); ## no critic (ProhibitNoWarnings)
    *PVE::Storage::config = sub { return PVE::Storage::Plugin->parse_config('storage.cfg', $text) };
    *PVE::Storage::write_config = sub {
        $text = PVE::Storage::Plugin->write_config('storage.cfg', $_[0]);
        return;
    };
    *PVE::Storage::lock_storage_config = sub { my ($code) = @_; return $code->() };
    *PVE::AccessControl::remove_storage_access = sub { return };
    *PVE::Storage::uevent_seqnum = sub { return 0 };
}

sub api {
    my ($function, %param) = @_;
    my $info = PVE::API2::Storage::Config->map_method_by_name($function);
    PVE::JSONSchema::validate(\%param, $info->{parameters});
    return $info->{code}->(\%param);
}

sub add {
    my (%change) = @_;
    return api(
        'create',
        storage => 'ha',
        type => 'drbdocfs2',
        path => '/mnt/pve/ha',
        'drbdocfs2-resource' => 'r0',
        %change,
    );
}

sub section {
    return PVE::Storage::config()->{ids}->{ha};
}

subtest 'add' => sub {
    my $backend = backend(get_identity => $uuid, '*' => undef);
    is_deeply(
        add(content => 'images,rootdir', nodes => 'pve1,pve2'),
        { storage => 'ha', type => 'drbdocfs2' }, 'done'
    );
    is_deeply(
        [map { $_->{method} } $backend->requests()],
        [qw(get_identity activate_storage)],
        'asked for its UUID, then activated',
    );
    is(section()->{'drbdocfs2-uuid'}, $uuid, 'the UUID is in storage.cfg');
    is(section()->{shared}, 1, 'it is shared');
    unlike($text, qr/undef|HASH/, 'storage.cfg is clean');
};

subtest 'set' => sub {
    my $backend = backend('*' => undef);
    api('update', storage => 'ha', preallocation => 'falloc', 'prune-backups' => 'keep-last=3');
    is(section()->{preallocation}, 'falloc', 'an option');
    api('update', storage => 'ha', delete => 'preallocation,prune-backups');
    is(section()->{preallocation}, undef, 'and its removal');
    like(
        dies(sub { api('update', storage => 'ha', path => '/mnt/b') }),
        qr/fixed|not defined in schema/,
        'never the path'
    );
    api('update', storage => 'ha', disable => 1);
    is(section()->{disable}, 1, 'disabled, whatever the mirror does');
    is($backend->requests(), undef, 'without asking it');
};

subtest 'what the GUI sends as deletions is known' => sub {
    my $options = plugin()->options();
    for my $name (qw(prune-backups max-protected-backups preallocation format)) {
        ok($options->{$name}, $name);
    }
};

subtest 'remove' => sub {
    api('delete', storage => 'ha');
    is(section(), undef, 'gone');
};

subtest 'an add that fails leaves nothing' => sub {
    my $backend =
        backend('*' => DRBDOCFS2Test::error(40, 'NotMounted', 'Nothing is mounted on it.'));
    like(
        dies(sub { add() }), qr/Nothing is mounted on it\.\n\z/,
        'not mounted: activation says so'
    );
    is(section(), undef, 'no section');
    add(nodes => 'pve2');
    ok(section(), 'for another node it is added unseen');
    api('delete', storage => 'ha');
    add(disable => 1);
    ok(section(), 'and disabled, too');
    api('delete', storage => 'ha');

    like(
        dies(sub { add('drbdocfs2-resource' => '../x') }), qr/drbdocfs2-resource/,
        'a bad resource'
    );
    like(dies(sub { add('drbdocfs2-volume' => 'x') }), qr/drbdocfs2-volume/, 'a bad volume');
    like(dies(sub { add('drbdocfs2-uuid' => 'x') }), qr/drbdocfs2-uuid/, 'a bad UUID');
    like(dies(sub { add(path => '/mnt/a b') }), qr/path/, 'a bad path');
    is(section(), undef, 'no section');
};

done_testing();
