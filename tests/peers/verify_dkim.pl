# The third judge of DKIM signatures: Mail::DKIM, with DNS answered from a file.
#
#   perl verify_dkim.pl KEYS.json MESSAGE-FILE …   → a list of results, in the order of the files
#
# KEYS.json maps a name to its TXT record, as for verify_dkim.mjs. A result is a list of signatures, in the order of the
# header: {"result": "pass", "comment": "", "domain", "selector"}.

use strict;
use warnings;
use JSON::PP;
use Mail::DKIM::DNS;
use Mail::DKIM::Verifier;
use Net::DNS;

package Published {

    sub send {
        my ($self, $name, $type) = @_;
        my $packet = Net::DNS::Packet->new($name, $type);
        my $text = $self->{$name};
        my %record = (name => $name, type => 'TXT', ttl => 60);
        $packet->push(answer => Net::DNS::RR->new(%record, txtdata => [unpack '(a255)*', $text])) if defined $text;
        $packet->header->rcode(defined $text ? 'NOERROR' : 'NXDOMAIN');
        return $packet;
    }

    sub errorstring { return 'NOERROR' }
}

sub content_of {
    my ($path) = @_;
    open my $file, '<:raw', $path or die "$path: $!";
    local $/ = undef;
    return scalar readline $file;
}

sub judged {
    my ($path) = @_;
    my $verifier = Mail::DKIM::Verifier->new;
    $verifier->PRINT(content_of($path));
    $verifier->CLOSE;
    return [
        map { {
            result => $_->result,
            comment => $_->result_detail,
            domain => $_->domain,
            selector => $_->selector,
        } } $verifier->signatures
    ];
}

my ($keys, @files) = @ARGV;
Mail::DKIM::DNS::resolver(bless decode_json(content_of($keys)), 'Published');
print encode_json([map { judged($_) } @files]), "\n";
