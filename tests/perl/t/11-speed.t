#!/usr/bin/perl -T

# The list of a large storage: what the Perl side adds for 1000 images. A bound that a busy test
# machine keeps, far above what it takes (bench/ measures).

use strict;
use warnings;

use Test::More;

use JSON;
use List::Util qw(min);
use Time::HiRes qw(time);

use DRBDOCFS2Test;

my @images = map {
    {
        volid => "ha:$_/vm-$_-disk-0.raw",
        format => 'raw',
        size => 34359738368,
        vmid => $_,
        used => 4096 * $_,
        parent => undef,
        ctime => 1700000000 + $_,
    }
} 100 .. 1099;
my $line = JSON->new->utf8->encode({ jsonrpc => '2.0', id => 0, result => \@images });
my $backend = backend(
    list_images => sub {
        my ($params, $id) = @_;
        return DRBDOCFS2Test::raw($line =~ s/"id":0/"id":$id/r . "\n");
    },
);

my ($best, $list) = (1e9);
for (1 .. 5) {
    my $start = time();
    $list = plugin()->list_images('ha', scfg(), undef, undef, {});
    $best = min($best, time() - $start);
}
is(scalar(@{$list}), 1000, 'all of them');
is_deeply([sort { $a->{vmid} <=> $b->{vmid} } @{$list}], \@images, 'unchanged');
diag(sprintf('1000 images in %.1f ms with %s', $best * 1000, JSON->backend()));

SKIP: {
    skip 'JSON::XS is not installed: the package recommends libjson-xs-perl', 1
        if !JSON->backend()->is_xs();
    cmp_ok($best, '<', 0.05, 'within 50 ms');
}

done_testing();
