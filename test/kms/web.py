"""HTTP/1.1 for the fault server: listeners, connections, and faults.

A service (aws.py, gcp.py, vault.py ...) turns a Request into a Reply and knows
nothing of sockets.  Faults are applied here: those of the network instead of
or around a reply, those of content to the reply that the service made.  HTTP is
read and written by hand because the faults are what a proper library prevents.
"""

import asyncio
import collections
import json
import socket
import ssl
import struct
import time
import uuid
from urllib.parse import parse_qsl, unquote

import content

REASONS = {200: 'OK', 204: 'No Content', 302: 'Found', 400: 'Bad Request', 401: 'Unauthorized',
           403: 'Forbidden', 404: 'Not Found', 405: 'Method Not Allowed', 407: 'Proxy Authentication Required',
           412: 'Precondition Failed', 429: 'Too Many Requests', 500: 'Internal Server Error',
           502: 'Bad Gateway', 503: 'Service Unavailable', 504: 'Gateway Timeout'}

HTML_403 = b'''<html><head><title>403 Forbidden</title></head><body>
<center><h1>403 Forbidden</h1></center><hr><center>egress-filter</center></body></html>'''
HTML_502 = b'<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>'


class Request:
    def __init__(self, method, target, headers, body, peer):
        self.method = method
        self.target = target
        self.raw_path, _, self.query = target.partition('?')
        self.path = unquote(self.raw_path)
        self.headers = headers        # names in lower case
        self.body = body
        self.client_certificate = peer    # what ssl tells, or None
        self.id = str(uuid.uuid4())
        self.note = {}                # what the service wants in the log

    def json(self):
        """The body as an object; None where it is none."""
        try:
            value = json.loads(self.body or b'{}')
        except ValueError:
            return None
        return value if isinstance(value, dict) else None

    def form(self):
        return dict(parse_qsl(self.body.decode('utf-8', 'replace'), keep_blank_values=True))

    def parameters(self):
        return dict(parse_qsl(self.query, keep_blank_values=True))


class Reply:
    def __init__(self, status, body=b'', headers=None, content_type='application/json'):
        self.status = status
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = {'Content-Type': content_type, **(headers or {})}

    def bytes(self):
        lines = [f'HTTP/1.1 {self.status} {REASONS.get(self.status, "Status")}']
        lines += [f'{name}: {value}' for name, value in self.headers.items()]
        if self.status != 204:
            lines.append(f'Content-Length: {len(self.body)}')
        return '\r\n'.join(lines + ['', '']).encode() + self.body


class Faults:
    """Rules, the first that matches counts: {service, operation, key, fault, count, ...}.

    service and operation may be "*", key is a part of the key's name, and count
    is how often the rule applies; without it, until it is taken away."""

    def __init__(self):
        self.rules = []

    def add(self, rule):
        if rule['fault'] not in ('latency', 'error', 'throttle', 'unavailable') and \
                rule['fault'] not in NETWORK and rule['fault'] not in PAGES and rule['fault'] not in content.CHANGES:
            raise ValueError('no such fault')
        self.rules.append(dict(rule))

    def clear(self, service=None):
        self.rules = [r for r in self.rules if service and r.get('service') != service]

    def matching(self, service, operation, key):
        """Latencies add up; of the other faults there is one at a time."""
        found = []
        for rule in list(self.rules):
            if rule.get('service', '*') not in ('*', service) or \
                    rule.get('operation', '*') not in ('*', operation) or \
                    rule.get('key', '') not in key:
                continue
            if rule['fault'] != 'latency' and any(r['fault'] != 'latency' for r in found):
                continue
            if 'count' in rule:
                rule['count'] -= 1
                if rule['count'] <= 0:
                    self.rules.remove(rule)
            found.append(rule)
        return found


class Service:
    """What the services have in common."""

    name = '?'

    def __init__(self, world):
        self.world = world

    def operation(self, request):
        """(operation, key) for faults, counters and the log."""
        raise NotImplementedError

    def handle(self, request):
        raise NotImplementedError

    def failure(self, request, fault):
        """The service's own reply for the faults error, throttle, unavailable."""
        raise NotImplementedError


class Listener:
    """The two ports of a service, plain and TLS."""

    def __init__(self, world, service, context=None):
        self.world = world
        self.service = service
        self.context = context
        self.sockets = {}             # 'http' or 'https' -> port
        self.servers = []
        self.connections = set()
        self.state = 'open'
        self.hole = []
        self.accepted = 0

    async def open(self):
        for scheme in ('http', 'https') if self.context else ('http',):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(('127.0.0.1', self.sockets.get(scheme, 0)))
            self.sockets[scheme] = sock.getsockname()[1]
            self.servers.append(await asyncio.start_server(
                self.serve, sock=sock, backlog=1024, ssl=self.context if scheme == 'https' else None))

    async def set_state(self, state):
        """open; refuse: nobody listens; blackhole: packets are swallowed."""
        if state == self.state:
            return
        for sock in self.hole:
            sock.close()
        self.hole = []
        for server in self.servers:
            server.close()
        self.servers = []
        if state == 'refuse' or self.state == 'blackhole':
            for writer in list(self.connections):
                writer.transport.abort()
        self.state = state
        if state == 'open':
            await self.open()
        elif state == 'blackhole':
            for port in self.sockets.values():
                self.dig(port)

    def dig(self, port):
        """A queue of connections that is full and never emptied: the kernel
        then drops what comes."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(('127.0.0.1', port))
        listener.listen(0)
        self.hole.append(listener)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(('127.0.0.1', port))
            self.hole.append(filler)

    async def serve(self, reader, writer):
        self.accepted += 1
        self.connections.add(writer)
        try:
            while await self.exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError, ssl.SSLError, TimeoutError):
            pass
        finally:
            self.connections.discard(writer)
            writer.close()

    async def read(self, reader, writer):
        head = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1')
        first, *lines = head[:-4].split('\r\n')
        method, target, _ = first.split(' ', 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(':')
            headers[name.lower()] = value.strip()
        if headers.get('expect', '').lower() == '100-continue':
            writer.write(b'HTTP/1.1 100 Continue\r\n\r\n')
        body = await reader.readexactly(int(headers.get('content-length', 0)))
        peer = writer.get_extra_info('peercert')
        return Request(method, target, headers, body, peer)

    async def exchange(self, reader, writer):
        """One request and its reply; True while the connection stays."""
        request = await self.read(reader, writer)
        began = time.time()
        service = self.service
        operation, key = service.operation(request)
        rules = [] if service.name == 'control' else self.world.faults.matching(service.name, operation, key)
        self.world.count(service.name, operation)
        if self.state == 'blackhole':
            rules.append({'fault': 'stall'})
        fault = next((r for r in rules if r['fault'] != 'latency'), {'fault': None})
        for rule in rules:
            if rule['fault'] == 'latency':
                await asyncio.sleep(rule['ms'] / 1000)
        if fault['fault'] in ('error', 'throttle', 'unavailable'):
            reply = service.failure(request, fault)
        elif fault['fault'] in PAGES:
            reply = PAGES[fault['fault']](fault)
        elif fault['fault'] in BEFORE:
            reply = Reply(200)
        else:
            reply = service.handle(request)
            if asyncio.isfuture(reply):
                reply = await reply
            if fault['fault'] in content.CHANGES:
                reply.body = content.CHANGES[fault['fault']](reply.body)
        self.world.log.append({'service': service.name, 'operation': operation, 'key': key, 'fault': fault['fault'],
                               'status': reply.status, 'request_id': request.id, 'time': began,
                               'user_agent': request.headers.get('user-agent'), **request.note})
        if fault['fault'] in NETWORK:
            return await NETWORK[fault['fault']](writer, reply, fault)
        writer.write(reply.bytes())
        await writer.drain()
        return request.headers.get('connection', '').lower() != 'close'


# --- pages of somebody in between --------------------------------------------

PAGES = {
    'html403': lambda f: Reply(403, HTML_403, content_type='text/html'),
    'html502': lambda f: Reply(502, HTML_502, content_type='text/html'),
    'html200': lambda f: Reply(200, b'<html><body>Please accept the terms of use.</body></html>',
                               content_type='text/html'),
    'empty403': lambda f: Reply(403, b'', content_type='text/plain'),
    'proxy407': lambda f: Reply(407, b'', {'Proxy-Authenticate': 'Basic realm="proxy"'}, 'text/html'),
    'redirect': lambda f: Reply(302, b'', {'Location': f.get('location', 'http://127.0.0.1:9/')}, 'text/html'),
}


# --- faults of the network: coroutines; True while the connection stays -------

async def reset(writer, reply, fault):
    """Closed by RST."""
    sock = writer.get_extra_info('socket')
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    writer.transport.abort()
    return False


async def half_closed(writer, reply, fault):
    """The server will send nothing more, but does not go away."""
    if writer.can_write_eof():
        writer.write_eof()
    else:                             # TLS cannot be closed half
        writer.transport.abort()
        return False
    await asyncio.sleep(fault.get('seconds', 600))
    return False


async def stall(writer, reply, fault):
    """No answer, ever."""
    await asyncio.sleep(fault.get('seconds', 600))
    return False


async def stall_body(writer, reply, fault):
    """Half of an answer, and then nothing."""
    data = reply.bytes()
    writer.write(data[:len(data) - len(reply.body) // 2])
    await writer.drain()
    return await stall(writer, reply, fault)


async def truncated(writer, reply, fault):
    """Less than Content-Length promised."""
    data = reply.bytes()
    writer.write(data[:len(data) - len(reply.body) // 2 - 1])
    await writer.drain()
    return False


async def drip(writer, reply, fault):
    """A byte every so often: each read is answered, the whole never ends."""
    for byte in reply.bytes():
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(fault.get('ms', 100) / 1000)
    return True


async def chunked(writer, reply, fault):
    """No fault, but another way to say the same."""
    head = reply.bytes()[:-len(reply.body) or None].replace(
        b'Content-Length: %d\r\n' % len(reply.body), b'Transfer-Encoding: chunked\r\n')
    writer.write(head)
    for at in range(0, len(reply.body), 10):
        part = reply.body[at:at + 10]
        writer.write(b'%x\r\n%s\r\n' % (len(part), part))
    writer.write(b'0\r\n\r\n')
    await writer.drain()
    return True


async def endless(writer, reply, fault):
    """A body that does not end, without a Content-Length."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{"a":"')
    for _ in range(4096):
        writer.write(b'A' * 65536)
        await writer.drain()
    return False


async def garbage(writer, reply, fault):
    """Not HTTP."""
    writer.write(b'\x15\x03\x01\x00\x02\x02\x50SSH-2.0-OpenSSH_9.2\r\n')
    await writer.drain()
    return False


async def huge_header(writer, reply, fault):
    writer.write(b'HTTP/1.1 200 OK\r\nX-Filler: ' + b'A' * (1 << 20) + b'\r\n\r\n{}')
    await writer.drain()
    return False


NETWORK = {f.__name__: f for f in (reset, half_closed, stall, stall_body, truncated, drip, chunked, endless,
                                   garbage, huge_header)}
# Those that happen before the service has done anything.
BEFORE = ('reset', 'half_closed', 'stall', 'garbage', 'endless', 'huge_header')


class World:
    """What the services share."""

    def __init__(self):
        self.faults = Faults()
        self.calls = collections.Counter()
        self.log = collections.deque(maxlen=20000)
        self.clock = 0.0              # how far ahead of ours the services' is
        self.settings = {}

    def now(self):
        return time.time() + self.clock

    def count(self, service, operation):
        self.calls[f'{service} {operation}'] += 1
