import json
import sys

from kafka import KafkaConsumer

for record in KafkaConsumer("recommendations", bootstrap_servers=sys.argv[1], auto_offset_reset="earliest"):
    if record.value is not None:
        items = [item["item_id"] for item in json.loads(record.value)["items"]]
        print(record.key.decode(), *items, flush=True)
