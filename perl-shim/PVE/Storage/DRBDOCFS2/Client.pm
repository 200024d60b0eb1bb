package PVE::Storage::DRBDOCFS2::Client;

# The one way from Perl to the backend: JSON-RPC 2.0, one line each way, one connection a call.
# Deadlines are select() on the monotonic clock, never alarm(): PVE's cluster lock owns that.

use strict;
use warnings;

use Errno qw(EAGAIN ECONNREFUSED EINTR EISCONN ENOENT);
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use JSON;
use POSIX ();
use Socket qw(AF_UNIX MSG_NOSIGNAL PF_UNSPEC SOCK_STREAM pack_sockaddr_un);
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);

# Tests point these elsewhere.
our $SOCKET = '/run/pvedrbdstor/backend.sock';
our @COMMAND = ('/usr/bin/pvedrbdstor', 'rpc');

our $MAX_REQUEST = 1024 * 1024; # bytes, the backend's own limit
our $MAX_RESPONSE = 64 * 1024 * 1024; # bytes

my $CHUNK = 256 * 1024; # bytes a recv()
my $RETRY = 0.02; # seconds between two tries while the socket's queue is full
my $STREAM_TIMEOUT = 7 * 24 * 3600; # seconds; a transfer ends with its stream, not with a clock
my $LOOK = "Look at 'systemctl status pvedrbdstor.socket pvedrbdstor.service'";

my $last_id = 0;

# Ask the backend. $timeout is in seconds; the backend is told a little less, so that its own error,
# which knows more, comes first. Returns the result; dies with "message\n".
sub call {
    my ($method, $params, $timeout) = @_;

    my $deadline = clock_gettime(CLOCK_MONOTONIC) + $timeout;
    my ($id, $line) = _request($method, $params, $timeout - ($timeout > 10 ? 1 : $timeout / 10));
    my $wait = { deadline => $deadline, timeout => $timeout, method => $method };

    my $socket = _connect($wait);
    return _result(_exchange($socket, "$line\n", $wait), $id, $method) if $socket;
    return _result(_one_shot("$line\n", $wait), $id, $method);
}

# Export or import: the one-shot with the caller's file handle as its stdout (%handle: out) or
# stdin (in). Progress lines go to STDERR, as the task log wants them. Returns the result.
sub stream {
    my ($method, $params, %handle) = @_;

    require PVE::Tools;

    my ($id, $line) = _request($method, $params, $STREAM_TIMEOUT);
    my $response;
    my $on_stderr = sub {
        my ($text) = @_;
        print {*STDERR} "$response\n" if defined($response);
        $response = $text;
        return;
    };
    my %redirect = (outfunc => sub { print {*STDERR} "$_[0]\n" });
    %redirect = (output => '>&' . fileno($handle{out})) if $handle{out};
    $redirect{input} = '<&' . fileno($handle{in}) if $handle{in};

    local %ENV = _environment();
    my $status = PVE::Tools::run_command(
        [@COMMAND, '--stream', '--request', $line],
        %redirect,
        errfunc => $on_stderr,
        noerr => 1,
    );
    die "'$method': '$COMMAND[0]' ended with status $status and without an answer."
        . " Try 'pvedrbdstor --version'; reinstall the package pvedrbdstor if that fails too\n"
        if !defined($response);
    return _result($response, $id, $method);
}

sub _request {
    my ($method, $params, $timeout) = @_;

    my $id = ++$last_id;
    my $text = JSON->new->utf8->canonical->encode(
        {
            jsonrpc => '2.0',
            id => $id,
            method => $method,
            params => { %{$params}, timeout => $timeout + 0 },
        }
    );
    die "'$method': the request is larger than $MAX_REQUEST bytes; ask for less at once\n"
        if length($text) >= $MAX_REQUEST;

    # The backend checks every value; what is ours to say here is only that it is one line.
    my ($line) = $text =~ m/\A([^\n]+)\z/;
    return ($id, $line);
}

# A connected, non-blocking socket; nothing where no socket exists.
sub _connect {
    my ($wait) = @_;

    socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or die "cannot make a socket: $!\n";
    _set_nonblocking($socket);
    my $address = pack_sockaddr_un($SOCKET);
    while (!connect($socket, $address)) {
        my $errno = $! + 0;
        return if $errno == ENOENT;
        last if $errno == EISCONN;
        if ($errno == EAGAIN || $errno == EINTR) { # its queue is full
            _die_timeout($wait) if _seconds_left($wait) <= 0;
            select(undef, undef, undef, $RETRY); ## no critic (ProhibitSleepViaSelect)
            next;
        }
        my $reason = $!;
        die "the pvedrbdstor service refuses connections on $SOCKET. $LOOK\n"
            if $errno == ECONNREFUSED;
        die "cannot connect to the pvedrbdstor service on $SOCKET: $reason. $LOOK\n";
    }
    return $socket;
}

# One request line out, one response line back.
sub _exchange {
    my ($socket, $line, $wait) = @_;

    my $sent = 0;
    while ($sent < length($line)) {
        my $count = send($socket, substr($line, $sent), MSG_NOSIGNAL);
        if (defined($count)) {
            $sent += $count;
        } elsif ($! == EAGAIN) {
            _wait_until($socket, 'writable', $wait);
        } elsif ($! != EINTR) {
            last; # it hung up early; it may have said why
        }
    }

    my ($buffer, $end) = ('', -1);
    while ($end < 0) {
        my $seen = length($buffer);
        my $count = sysread($socket, $buffer, $CHUNK, $seen);
        if ($count) {
            $end = index($buffer, "\n", $seen);
            die "'$wait->{method}': the answer is larger than $MAX_RESPONSE bytes."
                . " This is a bug in pvedrbdstor: please report it\n"
                if ($end < 0 ? length($buffer) : $end) > $MAX_RESPONSE;
        } elsif (!defined($count) && $! == EAGAIN) {
            _wait_until($socket, 'readable', $wait);
        } elsif (defined($count) || $! != EINTR) {
            _die_cut($buffer, $wait);
        }
    }
    return substr($buffer, 0, $end);
}

# The same request to a process of its own, where no service is set up (a rescue shell).
sub _one_shot {
    my ($line, $wait) = @_;

    socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC)
        or die "cannot make a pair of sockets: $!\n";
    my $pid = fork() // die "cannot start '$COMMAND[0]': $!\n";
    _become_one_shot($theirs) if !$pid;
    close($theirs);
    _set_nonblocking($ours);

    my $response = eval {
        my $answer = _exchange($ours, $line, $wait);
        $answer;
    };
    my $error = $@;
    close($ours);
    my $status = _reap($pid);
    die "cannot run '$COMMAND[0]', and there is no socket $SOCKET either."
        . " Is the package pvedrbdstor installed? $LOOK\n"
        if defined($status) && $status == 127 << 8;
    die $error if !defined($response);
    return $response;
}

# In the child: never returns.
sub _become_one_shot {
    my ($socket) = @_;

    my $command = $COMMAND[0];
    POSIX::dup2(fileno($socket), 0);
    POSIX::dup2(fileno($socket), 1);
    local %ENV = _environment();
    { no warnings 'exec'; exec {$command} @COMMAND; } ## no critic (ProhibitNoWarnings)
    POSIX::_exit(127);
    return;
}

# What perl -T lets a program start with, and Python reads names right with.
sub _environment {
    return (PATH => '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL => 'C.UTF-8');
}

# Give it a moment to end, then end it; one that hangs in the kernel is left behind, not waited for.
sub _reap {
    my ($pid) = @_;

    local $? = 0;
    for my $signal ((undef) x 25, 'TERM', (undef) x 10, 'KILL', (undef) x 5) {
        my $ended = waitpid($pid, POSIX::WNOHANG());
        return $? if $ended == $pid;
        return if $ended < 0;
        kill($signal, $pid) if $signal;
        select(undef, undef, undef, $RETRY); ## no critic (ProhibitSleepViaSelect)
    }
    return;
}

sub _result {
    my ($line, $id, $method) = @_;

    # perl -T: the backend is root's own, and the plugin checks every name it gets from here.
    my ($text) = $line =~ m/\A(.*)\z/s;
    my $response = eval { JSON->new->utf8->decode($text) };
    die "'$method': the answer of the pvedrbdstor service is not JSON. $LOOK\n"
        if ref($response) ne 'HASH';

    if (ref(my $error = $response->{error}) eq 'HASH') {
        my ($message) = ($error->{message} // '') =~ m/\A\s*(.*?)\s*\z/s;
        $message = "'$method' failed without a message. $LOOK" if $message eq '';
        die "$message\n";
    }
    die "'$method': the answer of the pvedrbdstor service belongs to another request. $LOOK\n"
        if !defined($response->{id}) || $response->{id} ne $id;
    die "'$method': the answer of the pvedrbdstor service has neither result nor error. $LOOK\n"
        if !exists($response->{result});
    return $response->{result};
}

sub _seconds_left {
    my ($wait) = @_;
    return $wait->{deadline} - clock_gettime(CLOCK_MONOTONIC);
}

sub _wait_until {
    my ($socket, $state, $wait) = @_;

    my $bits = '';
    vec($bits, fileno($socket), 1) = 1;
    while (1) {
        my $left = _seconds_left($wait);
        _die_timeout($wait) if $left <= 0;
        my ($readable, $writable) = $state eq 'readable' ? ($bits, undef) : (undef, $bits);
        my $found = select($readable, $writable, undef, $left);
        return if $found > 0;
        die "cannot wait for the pvedrbdstor service: $!\n" if $found < 0 && $! != EINTR;
    }
    return;
}

sub _set_nonblocking {
    my ($handle) = @_;

    my $flags = fcntl($handle, F_GETFL, 0) or die "cannot set up a socket: $!\n";
    fcntl($handle, F_SETFL, $flags | O_NONBLOCK) or die "cannot set up a socket: $!\n";
    return;
}

sub _die_timeout {
    my ($wait) = @_;
    die "'$wait->{method}' got no answer from the pvedrbdstor service within $wait->{timeout} s."
        . " Is the mirror stalled? $LOOK, and at 'drbdadm status'\n";
}

sub _die_cut {
    my ($buffer, $wait) = @_;

    my $how = $buffer eq '' ? 'hung up without an answer' : 'hung up in the middle of its answer';
    die "'$wait->{method}': the pvedrbdstor service $how. $LOOK\n";
}

1;
