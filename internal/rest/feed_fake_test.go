package rest

import (
	"context"
	"sync"

	"hanse/api/orderpb"
)

// fakeFeed is the feed of three order shards, in memory.
type fakeFeed struct {
	mu      sync.Mutex
	shards  [3][]*orderpb.Event
	changed chan struct{}
	err     error
	// following counts those who follow.
	following int
}

func (f *fakeFeed) ends() []uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ends []uint64
	for _, events := range f.shards {
		ends = append(ends, uint64(len(events)))
	}
	return ends
}

// publish appends events to a shard's feed.
func (f *fakeFeed) publish(shard int, events ...*orderpb.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shards[shard] = append(f.shards[shard], events...)
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// fail ends all who follow.
func (f *fakeFeed) fail(err error) {
	f.mu.Lock()
	f.err = err
	f.mu.Unlock()
	f.publish(0)
}

func (f *fakeFeed) followers() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.following
}

func (f *fakeFeed) follow(ctx context.Context, after []uint64, fn func([]FeedEvent) error) error {
	f.mu.Lock()
	f.following++
	cursor := append([]uint64(nil), after...)
	defer func() { f.following--; f.mu.Unlock() }()
	for {
		if f.err != nil {
			return f.err
		}
		sent := false
		for i, events := range f.shards {
			var batch []FeedEvent
			for ; cursor[i] < uint64(len(events)); cursor[i]++ {
				batch = append(batch, FeedEvent{Shard: i, Position: cursor[i] + 1, Event: events[cursor[i]]})
			}
			if len(batch) == 0 {
				continue
			}
			sent = true
			f.mu.Unlock()
			err := fn(batch)
			f.mu.Lock()
			if err != nil {
				return err
			}
		}
		if sent {
			continue // something may have come meanwhile
		}
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed := f.changed
		f.mu.Unlock()
		select {
		case <-changed:
			f.mu.Lock()
		case <-ctx.Done():
			f.mu.Lock()
			return nil
		}
	}
}
