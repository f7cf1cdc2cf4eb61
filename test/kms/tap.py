"""Test results as TAP, and the fault server as the tests of it start it."""

import http.client
import json
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
count = 0


def ok(condition, name, detail=None):
    global count
    count += 1
    print(f'{"ok" if condition else "not ok"} {count} - {name}', flush=True)
    if not condition and detail is not None:
        print(f'#   {detail}', flush=True)
    return bool(condition)


def same(got, expected, name):
    return ok(got == expected, name, f'got {got!r}, expected {expected!r}')


def raised(kind, call):
    """The exception of this kind that call raises; None where it raises none."""
    try:
        call()
    except kind as e:
        return e
    return None


class FaultServer:
    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen([sys.executable, os.path.join(HERE, 'faultserver.py'), folder],
                                        stdout=subprocess.PIPE, text=True)
        self.ports = json.loads(self.process.stdout.readline())

    def url(self, service, scheme='http'):
        return f'{scheme}://127.0.0.1:{self.ports[service][scheme]}'

    def control(self, method, path, body=None):
        connection = http.client.HTTPConnection('127.0.0.1', self.ports['control'])
        connection.request(method, path, json.dumps(body) if body is not None else None)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return json.loads(text or b'null')

    def fault(self, **rule):
        self.control('POST', '/faults', rule)

    def well(self):
        self.control('DELETE', '/faults')

    def calls(self):
        return self.control('GET', '/calls')
