package shard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"hanse/internal/store"
)

// feedMemoryBytes bounds the chunks that stay in memory after they are written: readers of the feed
// and of young orders then never touch the store.
const feedMemoryBytes = 4 << 20

// Feed is the shard's event store: all its events in one dense sequence of positions, from 1.
//
// The events of one Raft entry make one chunk, written once and never changed, keyed by its first
// position. Replicas apply the same entries and so write the same chunks.
type Feed struct {
	state  *State
	prefix []byte
	last   uint64   // position of the newest event
	open   [][]byte // events of the entry being applied
	chunks []chunk  // in memory, ascending, without gaps; the last unwritten ones are not in the store yet
	unwritten,
	unwrittenBytes, memoryBytes int
}

type chunk struct {
	first  uint64
	events [][]byte
	bytes  int
}

func newFeed(s *State, tag byte) *Feed {
	return &Feed{state: s, prefix: append(bytes.Clone(s.prefix), tag)}
}

// Last returns the position of the newest event, 0 when there is none.
func (f *Feed) Last() uint64 { return f.last }

func (f *Feed) append(event []byte) uint64 {
	f.open = append(f.open, event)
	f.last++
	return f.last
}

// seal ends the chunk of the entry that was applied and reports whether it holds anything.
func (f *Feed) seal() bool {
	if len(f.open) == 0 {
		return false
	}
	c := chunk{first: f.last - uint64(len(f.open)) + 1, events: f.open}
	for _, e := range f.open {
		c.bytes += len(e) + 4
	}
	f.open = nil
	f.chunks = append(f.chunks, c)
	f.unwritten++
	f.unwrittenBytes += c.bytes
	f.memoryBytes += c.bytes
	return true
}

// Event returns the event at a position. The slice must not be changed.
func (f *Feed) Event(position uint64) ([]byte, bool) {
	var found []byte
	f.Read(position-1, func(_ uint64, event []byte) bool {
		found = event
		return false
	})
	return found, found != nil
}

// Read calls fn for the events after a position, in order, until fn returns false. Slices must not be changed.
func (f *Feed) Read(after uint64, fn func(position uint64, event []byte) bool) {
	for position := after + 1; position <= f.last; {
		c := f.chunkOf(position)
		for i := position - c.first; i < uint64(len(c.events)); i++ {
			if !fn(position, c.events[i]) {
				return
			}
			position++
		}
	}
}

// chunkOf returns the chunk that holds position, which must be at most last.
func (f *Feed) chunkOf(position uint64) chunk {
	if sealed := f.last - uint64(len(f.open)); position > sealed {
		return chunk{first: sealed + 1, events: f.open}
	}
	if len(f.chunks) > 0 && position >= f.chunks[0].first {
		i := sort.Search(len(f.chunks), func(i int) bool { return f.chunks[i].first > position }) - 1
		return f.chunks[i]
	}
	it, err := f.state.reader.Iter(f.key(0), prefixEnd(f.prefix))
	if err != nil {
		panic(&StoreFault{err})
	}
	var c chunk
	ok := it.SeekLT(f.key(position + 1))
	if ok {
		c.first = binary.BigEndian.Uint64(it.Key()[len(f.prefix):])
		c.events, err = decodeChunk(it.Value())
	}
	if closeErr := it.Close(); err == nil {
		err = closeErr
	}
	if err == nil && (!ok || position >= c.first+uint64(len(c.events))) {
		err = fmt.Errorf("event %d of the feed is missing, the newest is %d", position, f.last)
	}
	if err != nil {
		panic(&StoreFault{err})
	}
	return c
}

func (f *Feed) key(position uint64) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(f.prefix), position)
}

func (f *Feed) flush(b store.Batch) {
	var value []byte
	for _, c := range f.chunks[len(f.chunks)-f.unwritten:] {
		value = value[:0]
		for _, e := range c.events {
			value = binary.AppendUvarint(value, uint64(len(e)))
			value = append(value, e...)
		}
		b.Set(f.key(c.first), value)
	}
	f.unwritten, f.unwrittenBytes = 0, 0
	drop := 0
	for f.memoryBytes > feedMemoryBytes && drop < len(f.chunks) {
		f.memoryBytes -= f.chunks[drop].bytes
		drop++
	}
	f.chunks = slices.Delete(f.chunks, 0, drop)
}

// decodeChunk copies the events out of a chunk's encoding.
func decodeChunk(data []byte) ([][]byte, error) {
	d := decoder{rest: bytes.Clone(data)}
	var events [][]byte
	for len(d.rest) > 0 {
		events = append(events, d.bytes())
	}
	return events, d.err
}
