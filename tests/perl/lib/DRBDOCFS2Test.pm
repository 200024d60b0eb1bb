package DRBDOCFS2Test;

# Shared by the Perl tests: the plugin loaded into whatever PVE is on @INC (real, or the stand-ins),
# a storage to talk about, and a recording backend that answers as a test says.

use strict;
use warnings;

use Errno qw(EINTR);
use File::Basename qw(dirname);
use File::Path ();
use File::Temp ();
use IO::Socket::UNIX;
use JSON;
use POSIX ();
use Test::More;

use base qw(Exporter);

## no critic (ProhibitAutomaticExportation)
our @EXPORT = qw(backend dies interpreter plugin scfg temp_dir);

my $PLUGIN = 'PVE::Storage::Custom::DRBDOCFS2Plugin';

# As PVE's own loader does it; that one looks at installed plugins only.
BEGIN {
    $ENV{PATH} = '/sbin:/bin:/usr/sbin:/usr/bin'; ## no critic (RequireLocalizedPunctuationVars)
    delete @ENV{qw(IFS CDPATH ENV BASH_ENV)};

    require PVE::Storage::Custom::DRBDOCFS2Plugin;
    PVE::Storage::Custom::DRBDOCFS2Plugin->register()
        if !-e '/usr/share/perl5/PVE/Storage/Custom/DRBDOCFS2Plugin.pm';
    require PVE::Storage;
    require PVE::Cluster;
    require PVE::Storage::DRBDOCFS2::Client;
    require PVE::INotify;

    # There is no pmxcfs to lock with or to ask.
    no warnings 'redefine'; ## no critic (ProhibitNoWarnings)
    *PVE::Cluster::get_vmlist = sub { return { ids => {} } };
    *PVE::Cluster::cfs_update = sub { return };
    *PVE::Cluster::cfs_lock_storage = sub {
        my ($storeid, $timeout, $code, @param) = @_;
        my $result = eval { $code->(@param) };
        return $@ ? undef : $result;
    };
    *PVE::INotify::nodename = sub { return 'pve1' };
}

sub plugin { return $PLUGIN }

# A storage as storage.cfg's parser hands it over, with changes: (key => value, ...).
sub scfg {
    my (%change) = @_;
    my %scfg = (
        type => 'drbdocfs2',
        path => '/mnt/pve/ha',
        'drbdocfs2-resource' => 'r0',
        content => { images => 1, rootdir => 1 },
        shared => 1,
        %change,
    );
    return { map { $_ => $scfg{$_} } grep { defined($scfg{$_}) } keys %scfg };
}

# The message of a die(), or undef.
sub dies {
    my ($code) = @_;
    return eval { $code->(); 1 } ? undef : $@;
}

# A folder that is removed at the end, usable under perl -T.
sub temp_dir {
    return File::Temp->newdir('/tmp/drbdocfs2-test-XXXXXXXX', TMPDIR => 0);
}

# A command for the one-shot: a Perl program of this suite with arguments.
sub interpreter {
    my ($program, @arguments) = @_;
    return map { m/\A(.*)\z/s } $^X, dirname(__FILE__) . "/../$program", @arguments; # untainted
}

# Start a backend. %answer: method => a result, or code that gets (params, id) and returns either a
# result, { error => {...} } blessed into 'Answer', or raw bytes blessed into 'Raw'. '*' is any.
sub backend {
    my (%answer) = @_;

    my $dir = temp_dir();
    my $self = bless {
        dir => $dir,
        owner => $$,
        socket => "$dir/backend.sock",
        record => "$dir/requests",
        },
        __PACKAGE__;
    my $listener = IO::Socket::UNIX->new(Local => $self->{socket}, Listen => 16)
        or die "cannot listen on $self->{socket}: $!";
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        eval { _serve($listener, $self->{record}, \%answer) };
        print {*STDERR} "the fake backend failed: $@" if $@;
        POSIX::_exit(0);
    }
    $self->{pid} = $pid;
    $PVE::Storage::DRBDOCFS2::Client::SOCKET = $self->{socket};
    return $self;
}

sub _serve {
    my ($listener, $record, $answer) = @_;
    local $SIG{PIPE} = 'IGNORE';
    while (1) {
        my $client = $listener->accept() or next;
        my $line = readline($client);
        next if !defined($line);
        open(my $log, '>>', $record) or die "cannot write $record: $!";
        print {$log} $line;
        close($log) or die "cannot write $record: $!";
        my $request = JSON->new->utf8->decode($line);
        my $result = exists($answer->{ $request->{method} })
            ? $answer->{ $request->{method} }
            : $answer->{'*'};
        $result = $result->($request->{params}, $request->{id}) if ref($result) eq 'CODE';

        if (ref($result) eq 'Raw') {
            print {$client} ${$result};
        } else {
            my %body = ref($result) eq 'Answer' ? %{$result} : (result => $result);
            print {$client} JSON->new->utf8->encode(
                { jsonrpc => '2.0', id => $request->{id}, %body },
            ) . "\n";
        }
        close($client);
    }
    return;
}

# The requests so far, decoded; forgets them.
sub requests {
    my ($self) = @_;
    open(my $log, '<', $self->{record}) or return;
    my @requests = map { JSON->new->utf8->decode($_) } readline($log);
    close($log) or die "cannot read $self->{record}: $!";
    unlink($self->{record}) or die "cannot remove $self->{record}: $!";
    return @requests;
}

sub error {
    my ($code, $kind, $message) = @_;
    return bless { error => { code => $code, message => $message, data => { kind => $kind } } },
        'Answer';
}

sub raw {
    my ($bytes) = @_;
    return bless \$bytes, 'Raw';
}

sub DESTROY {
    my ($self) = @_;
    return if $$ != $self->{owner};
    local ($?, $!);
    kill('TERM', $self->{pid});
    waitpid($self->{pid}, 0);
    return;
}

1;
