# A process that is never long the same: every few milliseconds it forks and the parent exits. Perl, because a fork
# without exec is what makes it quick, and Node has none. `exec` as third argument: each generation starts the program
# anew, so that its environment is empty for a moment.
use strict;
use warnings;

my ($every_ms, $generations, $exec) = @ARGV;
$| = 1;
print qq({"pid":$$}\n) if !$ENV{TUNWARD_TEST_COMET};
while ($generations-- > 0) {
    select(undef, undef, undef, $every_ms / 1000);
    my $child = fork() // exit 1;
    exit 0 if $child;
    next if !$exec;
    $ENV{TUNWARD_TEST_COMET} = 1;
    exec $^X, $0, $every_ms, $generations, 'exec';
}
