# One process that becomes another program all the time, under one pid: every few milliseconds it executes itself again,
# and inside of that its environment is empty. Generation-limited, so that one which its test forgot ends by itself.
use strict;
use warnings;

my $generations = shift;
$| = 1;
print "{\"pid\":$$}\n" if !$ENV{TUNWARD_TEST_EXECS};
$ENV{TUNWARD_TEST_EXECS} = 1;
exec $^X, $0, $generations - 1 if $generations > 0;
