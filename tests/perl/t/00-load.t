#!/usr/bin/perl -T

# "A plugin that fails to load loses storages for the whole cluster": never fail at compile time or
# in api(); core Perl and PVE modules only, anything else when first needed.

use strict;
use warnings;

use Test::More;

my (%before, %added);

BEGIN {
    ok(${^TAINT}, 'runs under perl -T, as PVE does');
    require PVE::Storage::Plugin;
    %before = %INC;
    require_ok('PVE::Storage::Custom::DRBDOCFS2Plugin');
    %added = map { $_ => 1 } grep { !$before{$_} } keys %INC;
}

my $plugin = 'PVE::Storage::Custom::DRBDOCFS2Plugin';

is_deeply(
    [keys %added], ['PVE/Storage/Custom/DRBDOCFS2Plugin.pm'],
    'loading it loads nothing but itself'
);
ok($plugin->isa('PVE::Storage::Plugin'), 'is a storage plugin');
is($plugin->type(), 'drbdocfs2', 'its type');

subtest 'api() without PVE::Storage does not die' => sub {
    local $SIG{__DIE__} = sub { fail("a die handler saw: $_[0]") };
    local $@ = 'before';
    is($plugin->api(), 15, 'the newest tested version');
    is($@, 'before', 'leaves $@ alone');
};

subtest 'is shared by its type, once, however often it is loaded' => sub {
    delete $INC{'PVE/Storage/Custom/DRBDOCFS2Plugin.pm'};
    local $SIG{__WARN__} = sub { fail($_[0]) if $_[0] !~ m/^Subroutine \w+ redefined/ };
    require PVE::Storage::Custom::DRBDOCFS2Plugin;
    is(scalar(grep { $_ eq 'drbdocfs2' } @PVE::Storage::Plugin::SHARED_STORAGE), 1, 'listed once');
};

subtest 'a missing client is an error of the call, not of the load' => sub {
    local @INC = (
        sub {
            my ($self, $file) = @_;
            die "hidden\n" if $file =~ m!^PVE/Storage/DRBDOCFS2/!;
            return;
        },
        @INC,
    );
    my $scfg = { path => '/mnt/pve/ha', 'drbdocfs2-resource' => 'r0' };
    ok(!eval { $plugin->activate_storage('ha', $scfg, {}); 1 }, 'the call dies');
    like($@, qr/reinstall the package/, 'and says what to do');
    is_deeply([$plugin->status('ha', $scfg, {})], [], 'status is inactive');
};

# "return PVE::Storage::APIVER() when it is at most the newest version the plugin was tested with,
# else that newest". Older than 9 is refused by PVE itself, as newer than it knows.
require DRBDOCFS2Test;
DRBDOCFS2Test->import();

subtest 'the API version follows PVE from 9 to 15' => sub {
    no warnings 'redefine'; ## no critic (ProhibitNoWarnings)
    my $version;
    local *PVE::Storage::APIVER = sub { return $version };
    for my $pve (9 .. 20) {
        $version = $pve;
        is($plugin->api(), $pve <= 15 ? $pve : 15, "PVE has $pve");
    }
    $version = 8;
    is($plugin->api(), 9, 'PVE has 8');
    for my $odd (undef, '', 'x') { $version = $odd; is($plugin->api(), 15, 'PVE has nonsense') }
    local *PVE::Storage::APIVER = sub { die "no\n" };
    is($plugin->api(), 15, 'PVE dies');
};

my $newest = PVE::Storage::APIVER();
cmp_ok($plugin->api(), '<=', $newest, 'this PVE does not refuse it as too new');
cmp_ok($plugin->api(), '>=', $newest - PVE::Storage::APIAGE(), 'nor as too old');

done_testing();
