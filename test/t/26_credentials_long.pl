# when: all
# python: kms
#
# Credentials of 20 seconds live five lives.

use strict;
use warnings;
use File::Basename qw(dirname);

$ENV{ENVELOPE_CREDENTIAL_SECONDS} = 20;
my $result = do(dirname(__FILE__) . '/24_credentials.pl');
die $@ if $@;
