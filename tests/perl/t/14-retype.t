#!/usr/bin/perl -T

# `mirror adopt` and `release`: a section of storage.cfg becomes one of another type. Text in, text
# out, through PVE's own parser and writer: "options that options() does not list vanish at the next
# write", and "a section that does not parse is lost".

use strict;
use warnings;

use Test::More;

use DRBDOCFS2Test;
use StorageCfgFile ();

my $dir = temp_dir();
my $file = "$dir/storage.cfg";
StorageCfgFile->import($file);
require PVE::Storage::DRBDOCFS2::Retype;

my $uuid = '0123456789ABCDEF0123456789ABCDEF';
my %mirror = ('drbdocfs2-resource' => 'r0', 'drbdocfs2-volume' => '0', 'drbdocfs2-uuid' => $uuid);
my $local = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl\n\n";
my $known = PVE::Storage::Plugin->private()->{propertyList};

sub spew {
    my ($text) = @_;
    open(my $fh, '>', $file) or die "$file: $!";
    print {$fh} $text;
    close($fh) or die "$file: $!";
    return;
}

sub slurp {
    open(my $fh, '<', $file) or die "$file: $!";
    my $text = do { local $/ = undef; readline($fh) };
    close($fh) or die "$file: $!";
    return $text;
}

sub section {
    my ($id) = @_;
    return PVE::Storage::config()->{ids}->{$id};
}

sub adopt {
    my (%change) = @_;
    return PVE::Storage::DRBDOCFS2::Retype::run(
        { storage => 'ha', from => 'dir', to => 'drbdocfs2', set => {%mirror}, %change },
    );
}

sub release {
    my (%change) = @_;
    my $set = { shared => '1', is_mountpoint => 'yes' };
    return PVE::Storage::DRBDOCFS2::Retype::run(
        { storage => 'ha', from => 'drbdocfs2', to => 'dir', set => $set, %change },
    );
}

my $options = "\tcontent backup,images,iso,rootdir\n\tcontent-dirs images=vm/disks\n\tnodes a,b\n"
    . "\tprune-backups keep-last=3\n\tpreallocation falloc\n\tmkdir 0\n\tdisable\n";
my $former = "dir: ha\n\tpath /mnt/pve/ha\n$options\tshared 1\n\tis_mountpoint yes\n\n";

subtest 'a look changes nothing and shows both' => sub {
    spew($local . $former);
    my $before = slurp();
    my $answer = adopt();
    is(slurp(), $before, 'the file is as it was');
    like($answer->{before}, qr/\Adir: ha\n/, 'before');
    like($answer->{after}, qr/\Adrbdocfs2: ha\n/, 'after');
    like($answer->{after}, qr/^\tdrbdocfs2-resource r0$/m, 'the mirror is named');
    is_deeply($answer->{dropped}, [], 'nothing is dropped');
};

subtest 'adopted: every option stays, so do the other storages' => sub {
    spew($local . $former);
    my %old = %{ section('ha') };
    my $other = section('local');
    my $answer = adopt(apply => 1, digest => adopt()->{digest});
    my %new = %{ section('ha') };
    is($new{type}, 'drbdocfs2', 'the type is ours');
    is(delete $new{$_}, $mirror{$_}, $_) for sort keys %mirror;
    delete $_->{type} for \%old, \%new;
    is_deeply(\%new, \%old, 'all else is as it was');
    is_deeply(section('local'), $other, 'and so is the other one');
    isnt(index(slurp(), $answer->{after}), -1, 'what was shown was written');
    ok(!-e "$file.lock", 'the lock is free again');
};

subtest 'and back again, to what it was' => sub {
    spew($local . $former);
    my $before = { %{ PVE::Storage::config()->{ids} } };
    adopt(apply => 1);
    my $answer = release(apply => 1);
    is_deeply(PVE::Storage::config()->{ids}, $before, 'as before');
    is_deeply($answer->{dropped}, [sort keys %mirror], 'only what is ours is dropped');
};

subtest 'what was never an option of the folder becomes one that protects it' => sub {
    spew("drbdocfs2: ha\n\tpath /mnt/pve/ha\n\tcontent images\n\tdrbdocfs2-resource r0\n\n");
    release(apply => 1);
    my $section = section('ha');
    is($section->{type}, 'dir', 'a folder');
    is($section->{shared}, 1, 'shared: else PVE copies disks at a migration');
    is($section->{is_mountpoint}, 'yes', 'and never written to while nothing is mounted');
};

subtest 'a default format that the type does not have is dropped, and said to be' => sub {
    for my $format (qw(qcow2 vmdk)) {
        spew("dir: ha\n\tpath /mnt/pve/ha\n\tcontent images\n\tformat $format\n\n");
        my $answer = adopt(apply => 1);
        my $kept = $format eq 'qcow2';
        is_deeply($answer->{dropped}, $kept ? [] : ['format'], "$format: dropped");
        is(section('ha')->{format}, $kept ? $format : undef, "$format: written");
    }
};

my %refused = (
    'another type' =>
        [$local . "btrfs: ha\n\tpath /x\n\n", {}, qr/no storage 'ha'|of type 'btrfs'/],
    'no such storage' => [$local, {}, qr/there is no storage 'ha'/],
    'a mirror that is in use' => [
        $former . "drbdocfs2: first\n\tpath /mnt/first\n\tdrbdocfs2-resource r0\n\n", {},
        qr/storage 'first' already lies on DRBD resource 'r0' volume 0/,
    ],
    'a wrong value' => [$former, { 'drbdocfs2-uuid' => 'x' }, qr/match the regex|pattern/],
    'no resource' => [$former, { 'drbdocfs2-resource' => '' }, qr/\S/],
);
for my $case (sort keys %refused) {
    subtest "refused: $case" => sub {
        my ($text, $set, $why) = @{ $refused{$case} };
        spew($text);
        for my $apply (0, 1) {
            local $SIG{__WARN__} = sub { }; # PVE says what it does not know
            like(dies(sub { adopt(apply => $apply, set => { %mirror, %{$set} }) }), $why, 'why');
            is(slurp(), $text, 'nothing was written');
            ok(!-e "$file.lock", 'the lock is free again');
        }
    };
}

subtest 'refused: chains of snapshots, where this PVE has them' => sub {
    plan skip_all => 'this PVE has none' if !$known->{'snapshot-as-volume-chain'};
    my $text = "dir: ha\n\tpath /mnt/pve/ha\n\tcontent images\n\tsnapshot-as-volume-chain 1\n\n";
    spew($text);
    like(dies(sub { adopt(apply => 1) }), qr/snapshot-as-volume-chain/, 'why');
    is(slurp(), $text, 'nothing was written');
};

subtest 'refused: what changed since it was looked at' => sub {
    spew($local . $former);
    my $digest = adopt()->{digest};
    ok($digest, 'a look gives a digest');
    my $changed = $local . $former . "dir: more\n\tpath /more\n\tcontent iso\n\n";
    spew($changed);
    like(dies(sub { adopt(apply => 1, digest => $digest) }), qr/modified/, 'why');
    is(slurp(), $changed, 'nothing was written');
};

done_testing();
