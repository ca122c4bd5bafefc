import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;

public class Consume {
    public static void main(String[] arguments) {
        var settings = Map.<String, Object>of(
            "bootstrap.servers", arguments[0], "group.id", "shop", "auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("recommendations"));
            var item = Pattern.compile("\"item_id\":\"([^\"]*)\"");
            while (true) {
                for (var list : consumer.poll(Duration.ofSeconds(1))) {
                    if (list.value() != null) {
                        var items = item.matcher(list.value()).results().map(found -> found.group(1)).toList();
                        System.out.println(list.key() + " " + String.join(" ", items));
                    }
                }
            }
        }
    }
}
