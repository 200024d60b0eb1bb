package PVE::SectionConfig;

# Stand-in: sections of "type: id" with indented "key value" lines, checked against properties that
# all plugins together define.

use strict;
use warnings;

use Digest::SHA;

my %BOOLEAN = (1 => 1, on => 1, yes => 1, true => 1, 0 => 0, off => 0, no => 0, false => 0);

sub register {
    my ($class) = @_;
    my ($type, $data) = ($class->type(), $class->private());
    die "duplicate plugin registration (type = $type)\n" if $data->{plugins}->{$type};
    $data->{plugins}->{$type} = $class;
    $data->{plugindata}->{$type} = $class->plugindata();
    return;
}

# All properties first, then every plugin's options: either can end the program.
sub init {
    my ($class) = @_;
    my $data = $class->private();
    my @plugins = map { $data->{plugins}->{$_} } sort keys %{ $data->{plugins} };
    for my $plugin (@plugins) {
        my $properties = $plugin->properties();
        for my $name (sort keys %{$properties}) {
            die "duplicate property '$name'\n" if $data->{propertyList}->{$name};
            $data->{propertyList}->{$name} = $properties->{$name};
        }
    }
    for my $plugin (@plugins) {
        my $options = $plugin->options();
        for my $name (sort keys %{$options}) {
            die "undefined property '$name'\n" if !$data->{propertyList}->{$name};
        }
        $data->{options}->{ $plugin->type() } = $options;
    }
    return;
}

sub lookup {
    my ($class, $type) = @_;
    return $class->private()->{plugins}->{$type} || die "unknown section type '$type'\n";
}

sub properties { return {} }
sub options { return {} }
sub plugindata { return {} }

sub check_value {
    my ($class, $type, $key, $value) = @_;
    my $data = $class->private();
    my $schema = $data->{propertyList}->{$key};
    die "unexpected property '$key'\n" if !$schema || !$data->{options}->{$type}->{$key};
    my $kind = $schema->{type} // 'string';
    if ($kind eq 'boolean') {
        $value = $BOOLEAN{ lc($value) } // die "type check ('boolean') failed - got '$value'\n";
    } elsif ($kind eq 'integer') {
        die "type check ('integer') failed - got '$value'\n" if $value !~ m/^-?\d+$/;
        die "value must have a minimum value of $schema->{minimum}\n"
            if defined($schema->{minimum}) && $value < $schema->{minimum};
        die "value must have a maximum value of $schema->{maximum}\n"
            if defined($schema->{maximum}) && $value > $schema->{maximum};
    }
    die "value does not match the regex pattern\n"
        if $schema->{pattern} && $value !~ m/^$schema->{pattern}$/;
    return $value;
}

sub decode_value { my ($class, $type, $key, $value) = @_; return $value }
sub encode_value { my ($class, $type, $key, $value) = @_; return $value }

sub check_config {
    my ($class, $id, $config, $create) = @_;
    my $type = $class->type();
    my $options = $class->private()->{options}->{$type};
    my $section = { type => $type };
    for my $key (grep { $_ ne 'type' } sort keys %{$config}) {
        die "can't change value of fixed parameter '$key'\n"
            if !$create && $options->{$key} && $options->{$key}->{fixed};
        my $value = $class->check_value($type, $key, $config->{$key});
        $section->{$key} = $class->decode_value($type, $key, $value);
    }
    for my $key (sort keys %{$options}) {
        die "missing value for required option '$key'\n"
            if $create && !$options->{$key}->{optional} && !defined($config->{$key});
    }
    return $section;
}

# What cannot be parsed warns and is gone at the next write, as it is in PVE.
sub parse_config {
    my ($class, $filename, $text) = @_;
    my (%ids, $plugin, $id, %config);
    my $finish = sub {
        return if !defined($id);
        if ($plugin) {
            $ids{$id} = eval { $plugin->check_config($id, {%config}, 1) };
            warn "file $filename (skip section '$id'): $@" if $@;
        }
        ($plugin, $id, %config) = ();
    };
    for my $line (split(/\n/, $text), '') {
        if ($line =~ m/^(\S+):\s*(\S+)\s*$/) {
            $finish->();
            $id = $2;
            $plugin = $class->private()->{plugins}->{ lc($1) }
                or warn "file $filename (skip section '$id'): unsupported type '$1'\n";
        } elsif ($plugin && $line =~ m/^\s+(\S+)(?:\s+(.*\S))?\s*$/) {
            my ($key, $value) = ($1, $2 // 1); # an option alone is a true one
            eval { $config{$key} = $plugin->check_value($plugin->type(), $key, $value); 1 }
                or warn "file $filename (section '$id') - unable to parse value of '$key': $@";
        } elsif ($line =~ m/^\s*$/) {
            $finish->();
        }
    }
    return { ids => \%ids, digest => Digest::SHA::sha1_hex($text) };
}

sub assert_if_modified {
    my ($config, $digest) = @_;
    die "detected modified configuration\n" if $digest && $digest ne $config->{digest};
    return;
}

sub write_config {
    my ($class, $filename, $config) = @_;
    my $text = '';
    for my $id (sort keys %{ $config->{ids} }) {
        my $section = $config->{ids}->{$id};
        my $plugin = $class->lookup($section->{type} // '');
        $text .= "$section->{type}: $id\n";
        for my $key (grep { $_ ne 'type' } sort keys %{$section}) {
            next if !$class->private()->{options}->{ $section->{type} }->{$key};
            my $value = $plugin->encode_value($section->{type}, $key, $section->{$key});
            $text .= "\t$key $value\n";
        }
        $text .= "\n";
    }
    return $text;
}

1;
