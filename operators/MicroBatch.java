import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.operators.ProcessingTimeService.ProcessingTimeCallback;
import org.apache.flink.streaming.api.graph.StreamConfig;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.operators.Output;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.tasks.ProcessingTimeService;
import org.apache.flink.streaming.runtime.tasks.StreamTask;
import org.apache.flink.types.Row;

/**
 * Gathers events, so that Python is entered once for many. In: Row(user, Row(kind, payload, partition, offset,
 * appended_at)). Out: Row(user of the first, Row(users, kinds, payloads, partitions, offsets, times)), arrays of as many.
 *
 * A batch goes out `waitMs` after the one before it, at once where that is longer ago, and when it has `most` events. It
 * keeps no state: what it holds goes out before the barrier of each checkpoint, and at the end of the input.
 *
 * `operators/micro_batch.py` has Flink compile it where it runs, by the compiler of Flink's SQL: Java without
 * generics' inference and lambdas.
 */
public class MicroBatch extends AbstractStreamOperator implements OneInputStreamOperator, ProcessingTimeCallback {
    private final long waitMs;
    private final int most;
    private final List rows = new ArrayList();
    private long last;
    private boolean waits;

    public MicroBatch(Object[] options, StreamTask task, StreamConfig config, Output output, ProcessingTimeService time) {
        waitMs = ((Number) options[0]).longValue();
        most = ((Number) options[1]).intValue();
        setup(task, config, output);
        setProcessingTimeService(time);
    }

    public void processElement(StreamRecord element) throws Exception {
        rows.add(element.getValue());
        if (rows.size() >= most) {
            send();
        } else if (!waits) {
            long now = processingTimeService.getCurrentProcessingTime();
            if (now >= last + waitMs) {
                send();
            } else {
                waits = true;
                processingTimeService.registerTimer(last + waitMs, this);
            }
        }
    }

    public void onProcessingTime(long timestamp) throws Exception {
        waits = false;
        send();
    }

    public void prepareSnapshotPreBarrier(long checkpoint) throws Exception {
        send();
    }

    public void finish() throws Exception {
        send();
        super.finish();
    }

    private void send() {
        int count = rows.size();
        if (count == 0) {
            return;
        }
        last = processingTimeService.getCurrentProcessingTime();
        String[] users = new String[count];
        String[] kinds = new String[count];
        byte[][] payloads = new byte[count][];
        Integer[] partitions = new Integer[count];
        Long[] offsets = new Long[count];
        Long[] times = new Long[count];
        for (int n = 0; n < count; n++) {
            Row row = (Row) rows.get(n);
            Row event = (Row) row.getField(1);
            users[n] = (String) row.getField(0);
            kinds[n] = (String) event.getField(0);
            payloads[n] = (byte[]) event.getField(1);
            partitions[n] = (Integer) event.getField(2);
            offsets[n] = (Long) event.getField(3);
            times[n] = (Long) event.getField(4);
        }
        rows.clear();
        Row batch = new Row(6);
        batch.setField(0, users);
        batch.setField(1, kinds);
        batch.setField(2, payloads);
        batch.setField(3, partitions);
        batch.setField(4, offsets);
        batch.setField(5, times);
        Row keyed = new Row(2);
        keyed.setField(0, users[0]);
        keyed.setField(1, batch);
        output.collect(new StreamRecord(keyed));
    }
}
