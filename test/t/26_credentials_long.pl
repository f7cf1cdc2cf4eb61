# when: all
# packages: curl
# python: kms
#
# Credentials of 20 seconds live five lives.

use strict;
use warnings;
use Cwd qw(abs_path);
use Envelope;
use EnvelopeKms;
use File::Basename qw(dirname);

$ENV{ENVELOPE_CREDENTIAL_SECONDS} = 20;
my $file = abs_path(dirname(__FILE__) . '/24_credentials.pl');
do $file;
die $@ if $@;
