package grpctransport

import (
	"sync"

	"hanse/internal/transport"
)

// queue holds what waits for one peer in one class.
type queue struct {
	limitBytes int
	// ready holds a token when the queue has become non-empty since the sender last found it empty.
	ready chan struct{}

	mu       sync.Mutex
	messages []transport.Message // from head on; those before are taken
	head     int
	bytes    int
	stale    int // how many of the waiting messages were there at the last failure
	dropped  uint64
}

func newQueue(limitBytes int) *queue {
	return &queue{limitBytes: limitBytes, ready: make(chan struct{}, 1)}
}

// push appends m and reports whether there was room.
func (q *queue) push(m transport.Message) bool {
	size := m.SizeBytes()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes+size > q.limitBytes {
		q.dropped++
		return false
	}
	q.messages = append(q.messages, m)
	q.bytes += size
	if len(q.messages)-q.head == 1 {
		select {
		case q.ready <- struct{}{}:
		default:
		}
	}
	return true
}

// drop counts a message that was refused for another reason than a full queue.
func (q *queue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped++
}

// take moves the oldest messages to batch, as many as fit a frame, and returns their size with it.
func (q *queue) take(batch []transport.Message) ([]transport.Message, int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	end, bytes := q.head, 0
	for end < len(q.messages) && end-q.head < maxFrameMessages {
		size := q.messages[end].SizeBytes()
		if end > q.head && bytes+size > maxFrameBytes {
			break
		}
		bytes += size
		end++
	}
	batch = append(batch, q.messages[q.head:end]...)
	q.stale = max(0, q.stale-(end-q.head))
	q.forgetUntil(end, bytes)
	return batch, bytes
}

// forgetUntil removes the messages before end, of the given size, and reuses their space when that is cheap: when
// nothing is left to move, or less than was taken since.
func (q *queue) forgetUntil(end, bytes int) {
	clear(q.messages[q.head:end])
	q.head = end
	q.bytes -= bytes
	if left := len(q.messages) - q.head; left < q.head {
		copy(q.messages, q.messages[q.head:])
		clear(q.messages[left:])
		q.messages, q.head = q.messages[:left], 0
	}
	if len(q.messages) == 0 && cap(q.messages) > 4*maxFrameMessages {
		q.messages = nil // a flood is over
	}
}

// failed drops the messages that were waiting at the failure before this one.
func (q *queue) failed() {
	q.mu.Lock()
	defer q.mu.Unlock()
	end, bytes := q.head+q.stale, 0
	for i := q.head; i < end; i++ {
		bytes += q.messages[i].SizeBytes()
	}
	q.dropped += uint64(q.stale)
	q.forgetUntil(end, bytes)
	q.stale = len(q.messages) - q.head
}

func (q *queue) figures() (queuedBytes int, dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes, q.dropped
}
