"""In place of mongosh, which no package index has: does what the script of deploy/compose/mongod-in-a-set.sh asks for.

It is called as mongosh and mongo are, reads the command and the password from the script, asks the real server, and
prints the lines that the script prints. mongosh itself ran the script by hand.
"""

import json
import re
import sys
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError


def main() -> None:
    if "--version" in sys.argv:
        return
    port = int(sys.argv[sys.argv.index("--port") + 1])
    script = Path(sys.argv[-1]).read_text(encoding="utf-8")
    (command,) = re.findall(r"command = (\{.*\});", script)
    (password,) = re.findall(r'auth\("__system", "(.*)"\)', script)
    login = {"username": "__system", "password": password, "authSource": "local"} if password else {}
    with MongoClient[dict[str, object]](
        "127.0.0.1", port, directConnection=True, serverSelectionTimeoutMS=2000, **login
    ) as client:
        try:
            reply = client.admin.command(json.loads(command))
        except OperationFailure as error:
            reply = {
                "ok": 0,
                "code": error.code,
                "errmsg": str(error.details and error.details.get("errmsg")),
            }
        except PyMongoError:
            sys.exit(1)
    for name in ("ok", "code", "errmsg", "ismaster"):
        if name in reply:
            value = reply[name]
            shown = str(value).lower() if isinstance(value, bool) else f"{value:g}" if name == "ok" else value
            print(f"tailer {name} {shown}")
    print("tailer hosts", *reply.get("hosts", ()))


main()
