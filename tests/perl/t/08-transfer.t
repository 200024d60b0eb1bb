#!/usr/bin/perl -T

# volume_export and volume_import hand over a file handle: images go through the one-shot with that
# handle as its stdout or stdin, other content PVE's own way. The answer is the last line of stderr,
# earlier lines are progress for the task log.

use strict;
use warnings;

use Test::More;

use DRBDOCFS2Test;

my $plugin = plugin();
my $scfg = scfg();
my ($raw, $qcow2) = ('100/vm-100-disk-0.raw', '100/vm-100-disk-0.qcow2');
my $dir = temp_dir();

# Run $code with the one-shot behaving so, and a file for the stream; (result or undef, $@, stderr).
sub transfer {
    my ($behaviour, $mode, $content, $code) = @_;
    local @PVE::Storage::DRBDOCFS2::Client::COMMAND =
        interpreter('fake-one-shot', $behaviour, 'rpc');
    local $PVE::Storage::DRBDOCFS2::Client::SOCKET = '/nonexistent/must-not-matter';
    my $file = "$dir/stream";
    open(my $fill, '>', $file) or die "cannot write $file: $!";
    print {$fill} $content;
    close($fill) or die "cannot write $file: $!";
    ## no critic (RequireBriefOpen)
    open(my $stream, $mode, $file) or die "cannot open $file: $!";

    open(my $saved, '>&', \*STDERR) or die "cannot keep STDERR: $!";
    open(STDERR, '>', "$dir/stderr") or die "cannot redirect STDERR: $!";
    my @result = eval { $code->($stream) };
    my $error = $@;
    open(STDERR, '>&', $saved) or die "cannot restore STDERR: $!";
    return (\@result, $error, slurp("$dir/stderr"), slurp($file));
}

sub slurp {
    my ($file) = @_;
    open(my $fh, '<', $file) or die "cannot read $file: $!";
    local $/ = undef;
    my $text = readline($fh);
    close($fh) or die "cannot read $file: $!";
    return $text;
}

subtest 'export' => sub {
    my ($result, $error, $log, $stream) = transfer(
        'export', '+<', '',
        sub {
            $plugin->volume_export($scfg, 'ha', $_[0], $raw, 'raw+size', 's1', undef, 0);
        }
    );
    is($error, '', 'no error');
    is_deeply($result, [], 'no result');
    is(
        $stream, pack('Q<', 5) . "data of $raw at s1",
        'the stream is in the file handle, byte for byte'
    );
    is($log, "10% done\n20% done\n", 'progress on STDERR, the answer not');
};

subtest 'export: the request' => sub {
    my ($result, $error) = transfer(
        'echo', '+<', '',
        sub {
            my ($stream) = @_;
            no warnings 'redefine'; ## no critic (ProhibitNoWarnings)
            my $stream_of = \&PVE::Storage::DRBDOCFS2::Client::stream;
            my $seen;
            local *PVE::Storage::DRBDOCFS2::Client::stream = sub { $seen = $stream_of->(@_) };
            $plugin->volume_export($scfg, 'ha', $stream, $qcow2, 'qcow2+size', undef, undef, 1);
            return $seen;
        }
    );
    is($error, '', 'no error');
    my ($seen) = @{$result};
    is_deeply([@{ $seen->{arguments} }[0 .. 2]], [qw(rpc --stream --request)], 'how it is called');
    is($seen->{request}->{method}, 'volume_export', 'method');
    my %params = %{ $seen->{request}->{params} };
    is((delete $params{storage})->{id}, 'ha', 'storage');
    cmp_ok(delete $params{timeout}, '>', 24 * 3600, 'no short deadline');
    is_deeply(
        \%params,
        { volname => $qcow2, format => 'qcow2+size', snap => undef, with_snapshots => JSON::true },
        'parameters'
    );
};

subtest 'import' => sub {
    my ($result, $error, $log) = transfer(
        'import', '<',
        'xx5data',
        sub {
            my ($stream) = @_;
            sysread($stream, my $start, 2); # PVE's callers may have read before us, unbuffered
            $plugin->volume_import($scfg, 'ha', $stream, $raw, 'raw+size', undef, undef, 0, 0);
        }
    );
    is($error, '', 'no error');
    is_deeply($result, ["ha:$raw"], 'the full volume ID');
    is($log, "got 5 bytes\n", 'it got the stream from where it stood');
    ($result) = transfer(
        'import', '<', '',
        sub {
            $plugin->volume_import($scfg, 'ha', $_[0], $raw, 'raw+size', undef, undef, 0, 1);
        }
    );
    is_deeply($result, ['ha:100/vm-100-disk-9.raw'], 'another name if that is allowed');
};

subtest 'errors' => sub {
    my $export =
        sub { $plugin->volume_export($scfg, 'ha', $_[0], $raw, 'raw+size', undef, undef, 0) };
    my $import =
        sub { $plugin->volume_import($scfg, 'ha', $_[0], $raw, 'raw+size', undef, undef, 0) };
    for my $case ([$export, '+<'], [$import, '<']) {
        my ($code, $mode) = @{$case};
        is((transfer('error', $mode, '', $code))[1], "Volume does not exist.\n", "the backend's");
        like(
            (transfer('silent', $mode, '', $code))[1], qr/status 3 and without an answer.*\n\z/,
            'silence'
        );
    }
    local @PVE::Storage::DRBDOCFS2::Client::COMMAND = ('/nonexistent/pvedrbdstor', 'rpc');
    ## no critic (RequireBriefOpen)
    open(my $null, '+<', '/dev/null') or die "cannot open /dev/null: $!";
    isnt(dies(sub { $export->($null) }), undef, 'no such program');
};

subtest 'formats that are not offered are refused before anything starts' => sub {
    local @PVE::Storage::DRBDOCFS2::Client::COMMAND = ('/nonexistent/pvedrbdstor', 'rpc');
    for my $case (
        [$raw, 'qcow2+size', undef, undef, 1],
        [$raw, 'raw+size', undef, undef, 1],
        [$raw, 'raw+size', undef, 's0', 0],
        [$raw, 'tar+size', undef, undef, 0],
        [$qcow2, 'qcow2+size', undef, undef, 0],
    ) {
        my ($volname, $format, @rest) = @{$case};
        like(
            dies(sub { $plugin->volume_export($scfg, 'ha', undef, $volname, $format, @rest) }),
            qr/format .* not available for 'ha:$volname'\n\z/, "export of $volname as $format"
        );
        like(
            dies(sub { $plugin->volume_import($scfg, 'ha', undef, $volname, $format, @rest) }),
            qr/format .* not available for 'ha:$volname'\n\z/, "import of $volname as $format"
        );
    }
};

done_testing();
