const { Kafka, logLevel } = require("kafkajs");

const kafka = new Kafka({ brokers: [process.argv[2]], logLevel: logLevel.ERROR });
const consumer = kafka.consumer({ groupId: "shop-js" });

async function main() {
  await consumer.connect();
  await consumer.subscribe({ topic: "recommendations", fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => {
      if (message.value === null) return;
      const { items } = JSON.parse(message.value.toString());
      console.log(message.key.toString(), ...items.map((item) => item.item_id));
    },
  });
}

main();
