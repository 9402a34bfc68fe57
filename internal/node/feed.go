package node

import (
	"context"
	"sync"
	"time"

	"hanse/api/orderpb"
	"hanse/internal/rest"
	"hanse/internal/shard"
)

const (
	feedPageEvents = 512
	feedPageBytes  = 1 << 20
	// feedPoll is how often a feed without a replica on this node, and any feed to be safe, is looked at.
	feedPoll = time.Second
)

// feedSignal wakes those who follow the feeds when an entry on this node has published events.
type feedSignal struct {
	mu      sync.Mutex
	changed chan struct{}
	waiting bool // somebody asked for changed since it was made
}

func newFeedSignal() *feedSignal { return &feedSignal{changed: make(chan struct{})} }

// raise wakes all who wait. It is called for each published entry, so it must be cheap when nobody waits.
func (s *feedSignal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.waiting {
		return
	}
	close(s.changed)
	s.changed, s.waiting = make(chan struct{}), false
}

// wait returns a channel that is closed at the next raise.
func (s *feedSignal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = true
	return s.changed
}

// FeedEnds implements rest.Feed.
func (c *Client) FeedEnds(ctx context.Context) ([]uint64, error) {
	ends := make([]uint64, c.layout[shard.Order])
	for i := range ends {
		page, err := c.feedPage(ctx, i, ^uint64(0)>>1, rest.Consistency{})
		if err != nil {
			return nil, err
		}
		ends[i] = page.Last
	}
	return ends, nil
}

func (c *Client) feedPage(ctx context.Context, index int, after uint64, cons rest.Consistency) (*orderpb.FeedPage, error) {
	q := &orderpb.Query{Body: &orderpb.Query_Feed{Feed: &orderpb.ReadFeed{After: after, Limit: feedPageEvents, MaxBytes: feedPageBytes}}}
	a, err := ask[orderpb.FeedPage](ctx, c, shard.NewID(shard.Order, index), q, cons)
	return a.Value, err
}

// FollowFeed implements rest.Feed. It reads this node's replicas: what they have applied is committed.
func (c *Client) FollowFeed(ctx context.Context, after []uint64, fn func([]rest.FeedEvent) error) error {
	cursor := make([]uint64, c.layout[shard.Order])
	copy(cursor, after)
	poll := time.NewTicker(feedPoll)
	defer poll.Stop()
	for {
		changed := c.feed.wait() // before reading, so that nothing published meanwhile is missed
		more := false
		for i := range cursor {
			page, err := c.feedPage(ctx, i, cursor[i], rest.Consistency{Stale: true})
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				continue // the shard is between leaders: it is read again below
			}
			if len(page.Events) == 0 {
				continue
			}
			events := make([]rest.FeedEvent, len(page.Events))
			for j, e := range page.Events {
				events[j] = rest.FeedEvent{Shard: i, Position: page.First + uint64(j), Event: e}
			}
			if err := fn(events); err != nil {
				return err
			}
			cursor[i] += uint64(len(page.Events))
			more = more || cursor[i] < page.Last
		}
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-poll.C:
		}
	}
}
