"""TLS and keep-alive in front of an emulator that has neither."""

import asyncio

from web import Reply, Service


class Proxy(Service):
    """Passes each request on to 127.0.0.1:port on a connection of its own, with its
    headers as they are: they are signed."""

    name = 'proxy'
    port = 0                          # POST /set

    def operation(self, request):
        target = request.headers.get('x-amz-target')
        return (target.rpartition('.')[2] if target else request.form().get('Action', request.path)), ''

    def failure(self, request, fault):
        return Reply(503, b'')

    def handle(self, request, admin=False):
        return asyncio.ensure_future(self.forward(request))

    async def forward(self, request):
        reader, writer = await asyncio.open_connection('127.0.0.1', self.port)
        lines = [f'{request.method} {request.target} HTTP/1.1']
        lines += [f'{name}: {value}' for name, value in request.headers.items()
                  if name not in ('connection', 'content-length', 'expect')]
        lines += [f'content-length: {len(request.body)}', 'connection: close', '', '']
        writer.write('\r\n'.join(lines).encode() + request.body)
        first, *fields = (await reader.readuntil(b'\r\n\r\n')).decode('latin-1')[:-4].split('\r\n')
        headers = dict(field.split(': ', 1) for field in fields if ': ' in field)
        low = {name.lower(): value for name, value in headers.items()}
        body = await self.body(reader, low)
        writer.close()
        kept = {name: value for name, value in headers.items()
                if name.lower() not in ('content-length', 'transfer-encoding', 'connection', 'content-type')}
        return Reply(int(first.split()[1]), body, kept, low.get('content-type', 'text/plain'))

    async def body(self, reader, headers):
        if headers.get('transfer-encoding') != 'chunked':
            return await reader.readexactly(int(headers['content-length'])) if 'content-length' in headers \
                else await reader.read()
        body = b''
        while size := int((await reader.readline()).strip() or b'0', 16):
            body += await reader.readexactly(size)
            await reader.readline()
        return body
