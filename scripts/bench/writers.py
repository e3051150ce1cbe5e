"""Four writers of a graph over HTTP while a command runs: writers.py PORT COMMAND... prints their commits per second."""

import http.client
import json
import subprocess
import sys
import threading
import time

port, command = int(sys.argv[1]), sys.argv[2:]
body = json.dumps({"statements": [{"statement": "CREATE (:Written {text: 'a line of text of a usual length'})"}]})
stop = threading.Event()
commits = [0] * 4


def write(number):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    while not stop.is_set():
        connection.request("POST", "/db/neo4j/tx/commit", body, {"Content-Type": "application/json"})
        errors = json.load(connection.getresponse())["errors"]
        if errors:
            raise SystemExit(str(errors))
        commits[number] += 1


threads = [threading.Thread(target=write, args=(number,), daemon=True) for number in range(4)]
for thread in threads:
    thread.start()
while min(commits) < 50:  # warm
    time.sleep(0.05)
before, begin = sum(commits), time.monotonic()
done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
after, end = sum(commits), time.monotonic()
stop.set()
if done.returncode != 0:
    sys.exit(f"{command}: {done.stderr}")
print(f"{(after - before) / (end - begin):.1f}")
