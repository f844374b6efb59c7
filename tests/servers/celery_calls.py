"""Call the Celery tasks as an application does, and print the results as JSON."""

import json
import sys

from servers.celery_app import recall, say

tasks = {"say": say, "recall": recall}
results = [tasks[name].delay(*arguments) for name, *arguments in json.load(sys.stdin)]
json.dump([result.get(timeout=100, interval=0.05) for result in results], sys.stdout)
