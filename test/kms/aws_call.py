"""One call of an AWS service, for tests that set an emulator up.

    python aws_call.py ENDPOINT REGION SERVICE OPERATION JSON

OPERATION as botocore names it (create_key).  Prints the reply as JSON; bytes in
base64.  Credentials come from the environment."""

import base64
import json
import sys

import botocore.session

endpoint, region, service, operation, parameters = sys.argv[1:]
client = botocore.session.get_session().create_client(service, region_name=region, endpoint_url=endpoint)
reply = getattr(client, operation)(**json.loads(parameters))
reply.pop('ResponseMetadata', None)


def shown(value):
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


print(json.dumps(reply, default=shown))
