"""AWS Signature Version 4, as a server checks it."""

import hashlib
import hmac
import re
from datetime import datetime, timezone
from urllib.parse import parse_qsl, quote

SKEW = 300


class Refused(Exception):
    """code, message"""


def digest(key, text):
    return hmac.digest(key, text.encode(), hashlib.sha256)


def canonical_query(query):
    pairs = sorted((quote(k, safe='-_.~'), quote(v, safe='-_.~')) for k, v in parse_qsl(query, keep_blank_values=True))
    return '&'.join(f'{k}={v}' for k, v in pairs)


def signature(secret, request, signed_headers, date, region, service):
    headers = ''.join(f'{name}:{re.sub(" +", " ", request.headers.get(name, ""))}\n' for name in signed_headers)
    canonical = '\n'.join([request.method, request.raw_path or '/', canonical_query(request.query), headers,
                           ';'.join(signed_headers), hashlib.sha256(request.body).hexdigest()])
    scope = f'{date[:8]}/{region}/{service}/aws4_request'
    to_sign = '\n'.join(['AWS4-HMAC-SHA256', date, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = digest(digest(digest(digest(b'AWS4' + secret.encode(), date[:8]), region), service), 'aws4_request')
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


def verify(request, service, principals, now):
    """(principal, region) of a signed request.  principals: access key -> a dict
    with secret, token, expires and arn."""
    header = request.headers.get('authorization')
    if not header:
        raise Refused('MissingAuthenticationTokenException', 'Missing Authentication Token')
    match = re.fullmatch(r'AWS4-HMAC-SHA256 Credential=([^/ ]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?'
                         r'SignedHeaders=([^, ]+), ?Signature=([0-9a-f]{64})', header)
    date = request.headers.get('x-amz-date', '')
    if not match or not re.fullmatch(r'\d{8}T\d{6}Z', date) or match[2] != date[:8]:
        raise Refused('IncompleteSignatureException', 'Authorization header requires existence of either a '
                      "'X-Amz-Date' or a 'Date' header.")
    access_key, _, region, scope_service, names, given = match.groups()
    signed = names.split(';')
    if scope_service != service:
        raise Refused('InvalidSignatureException',
                      f"Credential should be scoped to correct service: '{service}'. ")
    needed = {'host', 'x-amz-date'} | {h for h in request.headers if h.startswith('x-amz-')}
    if not needed <= set(signed):
        raise Refused('InvalidSignatureException', 'The request is missing signed headers.')
    principal = principals.get(access_key)
    if not principal:
        raise Refused('UnrecognizedClientException', 'The security token included in the request is invalid.')
    if principal.get('token') != request.headers.get('x-amz-security-token'):
        raise Refused('UnrecognizedClientException', 'The security token included in the request is invalid.')
    if signature(principal['secret'], request, signed, date, region, service) != given:
        raise Refused('InvalidSignatureException', 'The request signature we calculated does not match the signature '
                      'you provided. Check your AWS Secret Access Key and signing method. Consult the service '
                      'documentation for details.')
    sent = datetime.strptime(date, '%Y%m%dT%H%M%SZ').replace(tzinfo=timezone.utc).timestamp()
    shown = datetime.fromtimestamp(now, timezone.utc).strftime('%Y%m%dT%H%M%SZ')
    if sent < now - SKEW:
        raise Refused('InvalidSignatureException', f'Signature expired: {date} is now earlier than {shown} (- 5 min.)')
    if sent > now + SKEW:
        raise Refused('InvalidSignatureException',
                      f'Signature not yet current: {date} is still later than {shown} (+ 5 min.)')
    if principal.get('expires') and principal['expires'] <= now:
        raise Refused('ExpiredTokenException', 'The security token included in the request is expired')
    return principal, region
