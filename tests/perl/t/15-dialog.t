#!/usr/bin/perl -T

# The plugin's side of tests/gui/agreed.json: what the dialog in PVE's GUI offers and accepts is what
# the plugin offers and accepts. The dialog's side is tests/gui/panel.test.js.

use strict;
use warnings;

use Test::More;

use JSON;

use DRBDOCFS2Test;
use PVE::Storage::DRBDOCFS2::Section;

my $plugin = plugin();
my $agreed = JSON->new->utf8->decode(text_of('tests/gui/agreed.json'));
my $options = $plugin->options();

sub text_of {
    my ($path) = @_;
    open(my $fh, '<', $path) or die "cannot read '$path': $!\n";
    my $text = do { local $/ = undef; readline($fh) };
    close($fh) or die "cannot read '$path': $!\n";
    return $text;
}

# What keeps a value out of a new storage, or undef.
sub refusal {
    my ($key, $value) = @_;
    return dies(sub { $plugin->check_config('ha', { path => $value }, 1, 1) }) if $key eq 'path';
    my $refused = dies(sub { $plugin->check_value('drbdocfs2', $key, $value, 'ha') });
    return $refused if defined($refused) || $key ne 'drbdocfs2-resource';
    return dies(
        sub { PVE::Storage::DRBDOCFS2::Section::demand_resource('ha', { $key => $value }) }
    );
}

sub name {
    my ($key, $value) = @_;
    return JSON->new->ascii->canonical->encode([$key, $value]);
}

subtest 'every field of the dialog is an option' => sub {
    my %not_ours = (storage => 1, enable => 1); # the ID, and the opposite of 'disable'
    for my $field (grep { !$not_ours{$_} } @{ $agreed->{fields} }) {
        ok($options->{$field}, $field);
    }
};

subtest 'fixed and required options' => sub {
    my @fixed = sort grep { $options->{$_}->{fixed} } keys %{$options};
    is_deeply(\@fixed, [sort @{ $agreed->{fixed} }], 'fixed');
    my @required = sort grep { !$options->{$_}->{optional} } keys %{$options};
    is_deeply(\@required, [sort @{ $agreed->{required} }], 'required');
};

subtest 'contents and formats' => sub {
    my ($content, $format) = @{ $plugin->plugindata() }{qw(content format)};
    my $newer = { map { $_ => 1 } @{ $agreed->{content}->{'where PVE has it'} } };
    is_deeply(
        [sort grep { $_ ne 'none' && !$newer->{$_} } keys %{ $content->[0] }],
        [sort @{ $agreed->{content}->{always} }],
        'contents'
    );
    is_deeply(
        [sort keys %{ $content->[1] }],
        [sort @{ $agreed->{content}->{default} }],
        'contents by default'
    );
    is_deeply([sort keys %{ $format->[0] }], [sort @{ $agreed->{format}->{allowed} }], 'formats');
    is($format->[1], $agreed->{format}->{default}, 'format by default');
};

for my $key (sort keys %{ $agreed->{values} }) {
    my $values = $agreed->{values}->{$key};
    subtest "values of $key" => sub {
        is(refusal($key, $_), undef, 'taken: ' . name($key, $_)) for @{ $values->{good} };
        ok(refusal($key, $_), 'refused: ' . name($key, $_)) for @{ $values->{bad} };
        is(refusal($key, $_), undef, 'taken as sent: ' . name($key, $_))
            for values %{ $values->{typed} };
    };
}

is_deeply(
    [sort grep { /\Adrbdocfs2-/ } keys %{ $agreed->{values} }],
    [sort keys %{ $plugin->properties() }],
    'every property of ours has its values'
);

done_testing();
