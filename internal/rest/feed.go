package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"hanse/internal/order"
	"hanse/internal/reject"
)

// A stream's position is a vector, one number for each order shard, and travels in the id of every event as
// "0:812,1:790,2:9". A client that comes back with the last one gets what it has missed: nothing is lost, and events of
// one order stay in order.

// streamPatience is how long a client of a stream may take none of what is written to it.
const streamPatience = 30 * time.Second

// parsePositions reads such a vector of n shards. Shards that it does not name start at their beginning, so
// that nothing is lost.
func parsePositions(s string, n int) ([]uint64, error) {
	positions := make([]uint64, n)
	if s == "start" {
		return positions, nil
	}
	seen := make([]bool, n)
	for part := range strings.SplitSeq(s, ",") {
		index, position, ok := strings.Cut(strings.TrimPrefix(part, "order/"), ":") // a Hanse-Position of an order is one, too
		i, err := strconv.ParseUint(index, 10, 16)
		if !ok || err != nil || i >= uint64(n) || seen[i] {
			return nil, fmt.Errorf("%.40q is not shard:position with each shard from 0 to %d once", part, n-1)
		}
		seen[i] = true
		if positions[i], err = strconv.ParseUint(position, 10, 64); err != nil {
			return nil, fmt.Errorf("%.40q is not a position", position)
		}
	}
	return positions, nil
}

func appendPositions(b []byte, positions []uint64) []byte {
	for i, p := range positions {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(i), 10)
		b = append(b, ':')
		b = strconv.AppendUint(b, p, 10)
	}
	return b
}

// eventTypes reads the filter of a stream: exact types, or a prefix such as "payment.*". Nil is all.
func eventTypes(s string) (func(string) bool, error) {
	if s == "" {
		return nil, nil
	}
	known := order.EventTypes()
	wanted := map[string]bool{}
	for want := range strings.SplitSeq(s, ",") {
		prefix, all := strings.CutSuffix(want, "*")
		found := false
		for _, t := range known {
			if t == want || all && strings.HasPrefix(t, prefix) {
				wanted[t], found = true, true
			}
		}
		if !found {
			return nil, refuse(reject.InvalidRequest, "types", fmt.Sprintf("%.60q is no event type; known are %s", want, strings.Join(known, ", ")))
		}
	}
	return func(t string) bool { return wanted[t] }, nil
}

// follow serves GET /v1/events: server-sent events from now on, or from a position.
func (s *server) follow(c *call) error {
	wanted, err := eventTypes(c.query("types"))
	if err != nil {
		return err
	}
	name := "Last-Event-ID"
	from, err := c.header("Last-Event-Id")
	if err != nil {
		return err
	}
	if from == "" {
		name, from = "after", c.query("after")
	}
	var positions []uint64
	if from == "" {
		ctx, cancel := context.WithTimeout(c.ctx, s.cfg.RequestTimeout)
		positions, err = s.backend.FeedEnds(ctx)
		cancel()
		positions = slices.Clone(positions)
	} else if positions, err = parsePositions(from, s.backend.ShardCounts()["order"]); err != nil {
		err = refuse(reject.InvalidRequest, name, err.Error())
	} else {
		err = s.withinFeeds(c.ctx, name, positions)
	}
	if err != nil {
		return err
	}

	rc := http.NewResponseController(c.w)
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	h.Set("Hanse-Heartbeat", strconv.FormatInt(s.cfg.Heartbeat.Milliseconds(), 10))
	c.status = http.StatusOK
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	// The feed's goroutine encodes, this one writes; without a buffer between them a slow client slows its own
	// feed and nothing else.
	send := func(b []byte) error {
		_ = rc.SetWriteDeadline(time.Now().Add(streamPatience)) // recorders in tests have none
		if _, err := c.w.Write(b); err != nil {
			return err
		}
		return rc.Flush()
	}
	ctx, cancel := context.WithCancel(c.ctx)
	chunks := make(chan []byte)
	done := make(chan error, 1)
	current := slices.Clone(positions) // what the client has been told
	go func() {
		done <- s.backend.FollowFeed(ctx, positions, func(events []FeedEvent) error {
			chunk, err := appendFeed(nil, current, events, wanted)
			if err != nil || len(chunk) == 0 {
				return err
			}
			select {
			case chunks <- chunk:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	ended := false
	defer func() {
		cancel()
		if !ended {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				s.log.Debug("event stream ended", "request_id", c.requestID, "trace", c.trace, "err", err)
			}
		}
	}()

	if err := send(append(appendPositions([]byte(": following\nid: "), positions), "\n\n"...)); err != nil {
		return err
	}
	heartbeat := time.NewTicker(s.cfg.Heartbeat)
	defer heartbeat.Stop()
	for {
		select {
		case chunk := <-chunks:
			if err := send(chunk); err != nil {
				return err
			}
		case <-heartbeat.C:
			if err := send([]byte(": heartbeat\n\n")); err != nil {
				return err
			}
		case err := <-done:
			ended = true
			if err != nil && !errors.Is(err, context.Canceled) {
				s.log.Warn("event stream ended", "request_id", c.requestID, "trace", c.trace, "err", err)
			}
			return nil // the client resumes where it was
		case <-ctx.Done():
			return nil
		case <-s.cfg.Drain:
			return nil
		}
	}
}

// feedCheck bounds the look whether positions are in the feeds.
const feedCheck = time.Second

// withinFeeds refuses positions that no event has had: a stream from there would say nothing, and leave out what comes until then. While a
// shard has no leader nobody knows, and the stream begins all the same, for the other shards have theirs.
func (s *server) withinFeeds(ctx context.Context, name string, positions []uint64) error {
	ctx, cancel := context.WithTimeout(ctx, feedCheck)
	defer cancel()
	ends, err := s.backend.FeedEnds(ctx)
	if err != nil {
		return nil
	}
	for i, p := range positions {
		if i < len(ends) && p > ends[i] {
			return refuse(reject.InvalidRequest, name, fmt.Sprintf("position %d of order/%d is beyond the end of its feed, %d", p, i, ends[i]))
		}
	}
	return nil
}

// appendFeed appends events as server-sent events and moves the vector along. Events that are not wanted
// move it too: a last line tells the client, so that it does not ask for them again.
func appendFeed(b []byte, current []uint64, events []FeedEvent, wanted func(string) bool) ([]byte, error) {
	skipped := false
	for _, f := range events {
		if f.Shard < 0 || f.Shard >= len(current) {
			return nil, fmt.Errorf("feed event of order shard %d, there are %d", f.Shard, len(current))
		}
		current[f.Shard] = f.Position
		t := order.EventType(f.Event)
		if skipped = wanted != nil && !wanted(t); skipped {
			continue
		}
		b = append(b, "id: "...)
		b = appendPositions(b, current)
		b = append(b, "\nevent: "...)
		b = append(b, t...)
		b = append(b, "\ndata: "...)
		b = AppendEvent(b, f.Position, f.Event)
		b = append(b, "\n\n"...)
	}
	if skipped { // an id without data moves the client's last event ID and dispatches nothing
		b = append(b, "id: "...)
		b = appendPositions(b, current)
		b = append(b, "\n\n"...)
	}
	return b, nil
}
