package PVE::Tools;

# Stand-in: run_command with file handles for stdin and stdout, lines of stderr to a callback.

use strict;
use warnings;

use POSIX ();

use base qw(Exporter);

our @EXPORT_OK = qw(run_command split_list);

sub split_list {
    my ($text) = @_;
    return grep { $_ ne '' } split(/[\s,;\0]+/, $text // '');
}

# Options: input '<&FD', output '>&FD', outfunc, errfunc, noerr. Returns the exit status.
sub run_command {
    my ($command, %option) = @_;

    my ($out_read, $out_write, $err_read, $err_write);
    pipe($out_read, $out_write) or die "pipe: $!\n";
    pipe($err_read, $err_write) or die "pipe: $!\n";
    my ($in_fd) = ($option{input} // '') =~ m/^<&(\d+)$/;
    my ($out_fd) = ($option{output} // '') =~ m/^>&(\d+)$/;
    my $pid = fork() // die "fork: $!\n";
    if (!$pid) {
        POSIX::dup2($in_fd, 0) if defined($in_fd);
        POSIX::dup2($out_fd // fileno($out_write), 1);
        POSIX::dup2(fileno($err_write), 2);
        exec { $command->[0] } @{$command} or POSIX::_exit(127);
    }
    close($_) for $out_write, $err_write;
    my $drain = sub {
        my ($handle, $callback) = @_;
        while (defined(my $line = readline($handle))) {
            chomp($line);
            $callback->($line) if $callback;
        }
    };
    $drain->($err_read, $option{errfunc} // sub { print {*STDERR} "$_[0]\n" });
    $drain->($out_read, $option{outfunc} // sub { print "$_[0]\n" });
    waitpid($pid, 0);
    my $status = $? & 127 ? 128 + ($? & 127) : $? >> 8;
    die "command '@{$command}' failed: exit code $status\n" if $status && !$option{noerr};
    return $status;
}

1;
