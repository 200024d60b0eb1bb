package PVE::Storage::DRBDOCFS2::Retype;

# Changes the type of one storage in storage.cfg, by PVE's own code and under PVE's own lock, for
# `pvedrbdstor mirror adopt` and `release`. The id and every option that both types know stay.

use strict;
use warnings;

use JSON;

use PVE::Cluster;
use PVE::SectionConfig;
use PVE::Storage;
use PVE::Storage::Plugin;

use PVE::Storage::DRBDOCFS2::Section;

# A request as JSON text; the answer goes to standard output, as JSON.
sub main {
    my ($text) = @_;

    my $json = JSON->new->utf8->canonical;
    my $answer = run($json->decode($text));
    print $json->encode($answer), "\n";
    return;
}

# Request: storage, from and to (types), set (property => text), and to carry it out: apply, and the
# digest of an earlier answer. Answer: before and after (the section as text), dropped (options the
# new type does not have), digest. Dies with what is in the way, and then has changed nothing.
sub run {
    my ($request) = @_;

    if (!$request->{apply}) {
        PVE::Cluster::cfs_update() if PVE::Cluster->can('cfs_update');
        return (_plan(PVE::Storage::config(), $request))[0];
    }
    my $answer;
    PVE::Storage::lock_storage_config(
        sub {
            my $cfg = PVE::Storage::config();
            PVE::SectionConfig::assert_if_modified($cfg, $request->{digest});
            ($answer, my $section) = _plan($cfg, $request);
            $cfg->{ids}->{ $request->{storage} } = $section;
            PVE::Storage::write_config($cfg);
        },
        "storage.cfg was not changed",
    );
    return $answer;
}

# The answer, and the new section.
sub _plan {
    my ($cfg, $request) = @_;

    my ($storeid, $type) = @{$request}{qw(storage to)};
    my $old = $cfg->{ids}->{$storeid} // die "there is no storage '$storeid'\n";
    die "storage '$storeid' is of type '$old->{type}', not '$request->{from}'\n"
        if $old->{type} ne $request->{from};

    my $plugin = PVE::Storage::Plugin->lookup($type);
    my $options = PVE::Storage::Plugin->private()->{options}->{$type};
    my %new = (type => $type);
    my @dropped;
    for my $key (grep { $_ ne 'type' } sort keys %{$old}) {
        if ($options->{$key} && _offers($plugin, $key, $old->{$key})) {
            $new{$key} = $old->{$key};
        } else {
            push @dropped, $key;
        }
    }
    for my $key (sort keys %{ $request->{set} // {} }) {
        my $value = $plugin->check_value($type, $key, $request->{set}->{$key}, $storeid);
        $new{$key} = $plugin->decode_value($type, $key, $value);
    }
    PVE::Storage::DRBDOCFS2::Section::check_new($storeid, \%new) if $type eq 'drbdocfs2';

    my $text = _text($storeid, \%new);
    _read_back($storeid, \%new, $text);
    my %answer = (
        before => _text($storeid, $old),
        after => $text,
        dropped => \@dropped,
        digest => $cfg->{digest},
    );
    return (\%answer, \%new);
}

# The default format is the one option whose values differ between the types.
sub _offers {
    my ($plugin, $key, $value) = @_;

    return 1 if $key ne 'format';
    return $plugin->plugindata()->{format}->[0]->{$value} ? 1 : 0;
}

sub _text {
    my ($storeid, $section) = @_;
    return PVE::Storage::Plugin->write_config(
        'storage.cfg', { ids => { $storeid => $section }, order => { $storeid => 1 } },
    );
}

# What PVE would not read as it was meant is not written: a section that does not parse is lost.
sub _read_back {
    my ($storeid, $section, $text) = @_;

    my @said;
    my $read = do {
        local $SIG{__WARN__} = sub { push @said, $_[0] };
        PVE::Storage::Plugin->parse_config('storage.cfg', $text)->{ids}->{$storeid} // {};
    };
    push @said, map { "'$_' would be lost" } grep { !exists $read->{$_} } sort keys %{$section};
    die "storage '$storeid' would not be read back as a '$section->{type}' storage: @said\n"
        if @said;
    return;
}

1;
