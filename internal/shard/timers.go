package shard

import (
	"bytes"
	"container/heap"
	"encoding/binary"
	"errors"
	"slices"

	"hanse/internal/hlc"
	"hanse/internal/store"
)

// timers wake the logic at a time: one timer a key. All of them are in memory, for there are only as
// many as open sagas, holds and retries, and IDs that have lapsed; the ones that live long enough are also in the store.
type timers struct {
	prefix []byte
	live   map[string]*timer
	queue  timerQueue // may hold timers that are no longer live
	dirty  []*timer
}

type timer struct {
	at            hlc.Time
	key           string
	dead          bool
	dirty, stored bool
}

func (t *timers) set(at hlc.Time, key string) {
	t.clear(key)
	n := &timer{at: at, key: key}
	t.live[key] = n
	heap.Push(&t.queue, n)
	t.touch(n)
}

func (t *timers) clear(key string) {
	old, ok := t.live[key]
	if !ok {
		return
	}
	old.dead = true
	delete(t.live, key)
	t.touch(old)
	// Most timers are cleared long before they are due: drop the dead when they are the majority.
	if len(t.queue) > 2*len(t.live)+1024 {
		t.queue = slices.DeleteFunc(t.queue, func(n *timer) bool { return n.dead })
		heap.Init(&t.queue)
	}
}

func (t *timers) touch(n *timer) {
	if !n.dirty {
		n.dirty = true
		t.dirty = append(t.dirty, n)
	}
}

// next returns when the first timer is due, 0 when there is none.
func (t *timers) next() hlc.Time {
	for len(t.queue) > 0 && t.queue[0].dead {
		heap.Pop(&t.queue)
	}
	if len(t.queue) == 0 {
		return 0
	}
	return t.queue[0].at
}

// pop removes and returns the first timer that is due at now.
func (t *timers) pop(now hlc.Time) (key string, ok bool) {
	if at := t.next(); at == 0 || at > now {
		return "", false
	}
	key = t.queue[0].key
	t.clear(key)
	return key, true
}

func (t *timers) storeKey(n *timer) []byte {
	return append(binary.BigEndian.AppendUint64(bytes.Clone(t.prefix), uint64(n.at)), n.key...)
}

func (t *timers) flush(b store.Batch) {
	for _, n := range t.dirty {
		n.dirty = false
		switch {
		case !n.dead:
			b.Set(t.storeKey(n), nil)
			n.stored = true
		case n.stored:
			b.Delete(t.storeKey(n))
		}
	}
	t.dirty = t.dirty[:0]
}

func (t *timers) load(r store.Reader) error {
	it, err := r.Iter(t.prefix, prefixEnd(t.prefix))
	if err != nil {
		return err
	}
	for it.Next() {
		k := it.Key()[len(t.prefix):]
		if len(k) < 8 {
			return errors.Join(errors.New("timer key too short"), it.Close())
		}
		n := &timer{at: hlc.Time(binary.BigEndian.Uint64(k)), key: string(k[8:]), stored: true}
		t.live[n.key] = n
		t.queue = append(t.queue, n)
	}
	heap.Init(&t.queue)
	return it.Close()
}

func (t *timers) digest(sum func(key, value []byte)) {
	for _, n := range t.live { // the digest does not depend on the order
		sum(t.storeKey(n), nil)
	}
}

// timerQueue is a heap by time, then key, so that equal times are served in the same order everywhere.
type timerQueue []*timer

func (q timerQueue) Len() int { return len(q) }
func (q timerQueue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].key < q[j].key
}
func (q timerQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *timerQueue) Push(x any)   { *q = append(*q, x.(*timer)) }
func (q *timerQueue) Pop() any {
	old := *q
	n := old[len(old)-1]
	*q = old[:len(old)-1]
	return n
}
