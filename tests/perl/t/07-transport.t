#!/usr/bin/perl -T

# The client: one connection a call, deadlines by select() and never alarm(), the one-shot only where
# no socket exists and never as a second try; whatever goes wrong is one clear message.

use strict;
use warnings;

use Test::More;

use Fcntl qw(F_GETFD FD_CLOEXEC);
use IO::Socket::UNIX;
use Time::HiRes qw(setitimer sleep time ITIMER_REAL);

use DRBDOCFS2Test;

my $Client = 'PVE::Storage::DRBDOCFS2::Client';
my @no_one_shot = ('/nonexistent/pvedrbdstor', 'rpc');
local @PVE::Storage::DRBDOCFS2::Client::COMMAND = @no_one_shot;

sub call {
    my ($timeout, $params) = @_;
    return PVE::Storage::DRBDOCFS2::Client::call('alloc_image', $params // {}, $timeout // 5);
}

sub dies_within {
    my ($low, $high, $pattern, $name, $code) = @_;
    my $start = time();
    my $error = dies($code) // 'did not die';
    my $took = time() - $start;
    like($error, qr/$pattern.*\n\z/s, $name);
    unlike($error, qr/ at \S+ line \d+/, '... without a place in the source');
    cmp_ok($took, '>=', $low, "... after $low s at least");
    cmp_ok($took, '<', $high, "... within $high s");
    return;
}

subtest 'a slow answer is an answer' => sub {
    my $backend = backend('*' => sub { sleep(0.3); return 'late' });
    is(call(5), 'late', 'within its deadline');
};

subtest 'an answer in pieces, and a large one' => sub {
    my $text = 'x' x (4 * 1024 * 1024);
    my $backend = backend('*' => $text);
    is(call(10), $text, '4 MiB');
};

subtest 'a large request' => sub {
    my $backend = backend('*' => sub { return length($_[0]->{filler}) });
    is(call(10, { filler => 'x' x 900_000 }), 900_000, '900 KB');
    dies_within(
        0, 1, 'the request is larger', 'more than the backend takes',
        sub { call(5, { filler => 'x' x 1_100_000 }) }
    );
    is(scalar(my @seen = $backend->requests()), 1, 'is not even sent');
};

subtest 'text is UTF-8 both ways' => sub {
    my $backend = backend('*' => sub { return $_[0]->{name} . "\x{20ac}" });
    is(call(5, { name => "\x{e4}" }), "\x{e4}\x{20ac}", 'beyond ASCII');
};

subtest 'a hang ends at the deadline' => sub {
    my $backend = backend('*' => sub { sleep(20); return });
    dies_within(
        0.4, 2, q{'alloc_image' got no answer .* within 0.5 s. Is the mirror stalled},
        'says what to look at', sub { call(0.5) }
    );
};

subtest 'a server that never accepts' => sub {
    my $dir = temp_dir();
    my $listener = IO::Socket::UNIX->new(Local => "$dir/s", Listen => 1) or die "listen: $!";
    local $PVE::Storage::DRBDOCFS2::Client::SOCKET = "$dir/s";
    dies_within(0.4, 2, 'got no answer', 'the first waits in the queue', sub { call(0.5) });
    my @fill;
    while (@fill < 64) { # until the queue is full
        my $more = IO::Socket::UNIX->new(Peer => "$dir/s", Blocking => 0, Timeout => 0) or last;
        push @fill, $more;
    }
    cmp_ok(scalar(@fill), '<', 64, 'the queue is full');
    dies_within(0.4, 2, 'got no answer', 'and the next waits for the queue', sub { call(0.5) });
};

my %wrong = (
    'garbage' => ["\x00\xff not json\n", 'is not JSON'],
    'a number' => ["7\n", 'is not JSON'],
    'an empty line' => ["\n", 'is not JSON'],
    'nothing' => ['', 'hung up without an answer'],
    'a cut line' => ['{"jsonrpc":"2.0","id":1,"res', 'hung up in the middle of its answer'],
    'another id' => [qq({"jsonrpc":"2.0","id":"zz","result":1}\n), 'belongs to another request'],
    'no id' => [qq({"jsonrpc":"2.0","result":1}\n), 'belongs to another request'],
);
for my $case (sort keys %wrong) {
    my ($bytes, $pattern) = @{ $wrong{$case} };
    subtest "answer: $case" => sub {
        my $backend = backend('*' => DRBDOCFS2Test::raw($bytes));
        dies_within(0, 2, $pattern, 'one clear message', sub { call(5) });
    };
}

subtest 'answer: neither result nor error' => sub {
    my $backend = backend(
        '*' => sub {
            my ($params, $id) = @_;
            return DRBDOCFS2Test::raw(qq({"jsonrpc":"2.0","id":$id}\n));
        },
    );
    dies_within(0, 2, 'neither result nor error', 'one clear message', sub { call(5) });
};

subtest 'answer: too large' => sub {
    local $PVE::Storage::DRBDOCFS2::Client::MAX_RESPONSE = 1024 * 1024;
    my $backend = backend('*' => DRBDOCFS2Test::raw('x' x (3 * 1024 * 1024)));
    dies_within(0, 5, 'answer is larger than 1048576 bytes', 'is bounded', sub { call(10) });
    is($PVE::Storage::DRBDOCFS2::Client::MAX_REQUEST, 1024 * 1024, 'and so is a request');
};

subtest 'a server that hangs up while we write' => sub {
    my $dir = temp_dir();
    my $listener = IO::Socket::UNIX->new(Local => "$dir/s", Listen => 8) or die "listen: $!";
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        my $client = $listener->accept();
        sysread($client, my $start, 10);
        close($client);
        POSIX::_exit(0);
    }
    local $PVE::Storage::DRBDOCFS2::Client::SOCKET = "$dir/s";
    local $SIG{PIPE} = sub { fail('SIGPIPE') };
    dies_within(
        0, 3, 'hung up without an answer', 'no SIGPIPE',
        sub { call(5, { filler => 'x' x 900_000 }) }
    );
    waitpid($pid, 0);
};

subtest 'refused: the service is named, nothing else is tried' => sub {
    my $dir = temp_dir();
    IO::Socket::UNIX->new(Local => "$dir/s", Listen => 1) or die "listen: $!"; # closed at once
    local $PVE::Storage::DRBDOCFS2::Client::SOCKET = "$dir/s";
    local @PVE::Storage::DRBDOCFS2::Client::COMMAND = interpreter('fake-one-shot', 'echo');
    dies_within(
        0, 1, 'refuses connections .*systemctl status pvedrbdstor.socket', 'refused',
        sub { call(5) }
    );
};

subtest 'a time-out is not tried again by the one-shot' => sub {
    my $backend = backend('*' => sub { sleep(20); return });
    local @PVE::Storage::DRBDOCFS2::Client::COMMAND = interpreter('fake-one-shot', 'echo');
    dies_within(0.2, 2, 'got no answer', 'it dies', sub { call(0.3) });
};

subtest 'no socket: the one-shot' => sub {
    local $PVE::Storage::DRBDOCFS2::Client::SOCKET = '/nonexistent/backend.sock';
    my $with = sub {
        my ($behaviour, $timeout) = @_;
        local @PVE::Storage::DRBDOCFS2::Client::COMMAND =
            interpreter('fake-one-shot', $behaviour, 'rpc');
        return call($timeout, { vmid => 100 });
    };
    local $ENV{PERL5OPT} = '-Mnonsense';
    local $ENV{PATH} = "$ENV{PATH}:/tmp"; # tainted
    my $seen = $with->('echo', 5);
    is($seen->{request}->{method}, 'alloc_image', 'gets the request');
    is($seen->{request}->{params}->{vmid}, 100, 'with its parameters');
    is_deeply($seen->{arguments}, ['rpc'], 'on stdin, not in the arguments');
    is_deeply(
        [sort grep { !/^_$/ } keys %{ $seen->{environment} }], [qw(LC_ALL PATH)],
        'and a clean environment'
    );

    dies_within(0, 3, '^Volume does not exist\.', 'its error', sub { $with->('error', 5) });
    dies_within(0, 3, 'hung up without an answer', 'its silence', sub { $with->('silent', 5) });
    dies_within(0.4, 3, 'got no answer', 'its hang', sub { $with->('hang', 0.5) });
    is(waitpid(-1, POSIX::WNOHANG()), -1, 'no child is left');
    dies_within(
        0, 2, 'cannot run .* Is the package pvedrbdstor installed', 'its absence',
        sub { call(5) }
    );
    is(waitpid(-1, POSIX::WNOHANG()), -1, 'no child is left');
};

# "cfs_lock owns alarm(): the plugin uses select() deadlines, never alarm()."
subtest 'an alarm of the caller stays the caller\'s' => sub {
    my $backend = backend('*' => sub { sleep(0.2); return 1 });
    alarm(50);
    call(5);
    cmp_ok(alarm(0), '>=', 48, 'it still runs');

    $backend = backend('*' => sub { sleep(20); return });
    local $SIG{ALRM} = sub { die "got lock timeout\n" };
    setitimer(ITIMER_REAL, 0.3);
    is(dies(sub { call(10) }), "got lock timeout\n", 'and ends a call');

    local $PVE::Storage::DRBDOCFS2::Client::SOCKET = '/nonexistent/backend.sock';
    local @PVE::Storage::DRBDOCFS2::Client::COMMAND = interpreter('fake-one-shot', 'hang', 'rpc');
    setitimer(ITIMER_REAL, 0.3);
    is(dies(sub { call(10) }), "got lock timeout\n", 'the one-shot\'s, too');
    is(waitpid(-1, POSIX::WNOHANG()), 0, 'only the test\'s own backend is left');
};

subtest 'signals do not cut a call short' => sub {
    my $count = 0;
    local $SIG{ALRM} = sub { $count++ };
    my $backend = backend('*' => sub { local $SIG{ALRM} = 'IGNORE'; sleep(0.5); return 'whole' });
    setitimer(ITIMER_REAL, 0.05, 0.05);
    is(call(5), 'whole', 'the answer comes');
    setitimer(ITIMER_REAL, 0);
    cmp_ok($count, '>', 2, 'through several of them');
};

# "Daemons fork: one connection per call", and no process they start inherits it.
subtest 'the connection is closed on exec, and after the call' => sub {
    my %flags;
    no warnings 'redefine'; ## no critic (ProhibitNoWarnings)
    my $exchange = \&PVE::Storage::DRBDOCFS2::Client::_exchange;
    local *PVE::Storage::DRBDOCFS2::Client::_exchange = sub {
        my ($socket, @rest) = @_;
        $flags{ fileno($socket) } = fcntl($socket, F_GETFD, 0);
        return $exchange->($socket, @rest);
    };
    my $backend = backend('*' => 1);
    call(5) for 1 .. 3;
    is(scalar(keys %flags), 1, 'each call reuses the same free descriptor');
    ok((values %flags)[0] & FD_CLOEXEC, 'close on exec');
};

done_testing();
