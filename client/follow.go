package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// FollowOptions say what to follow. The zero value follows everything from now on.
type FollowOptions struct {
	// After is the Position behind which to go on, or "start" for everything there ever was.
	After string
	// Types are event types, or prefixes such as payment.*; none for all.
	Types []string
	// resumed says that After is the stream's own word, and not the caller's.
	resumed bool
}

// Followed is an event of the cluster's stream. Events of one order come in its order.
type Followed struct {
	// Position is where to go on after this event: keep it with what the event has done.
	Position string `json:"position"`
	Event    Event  `json:"event"`
}

// A stream names its heartbeat in milliseconds. One that says nothing for so many of them is dead, and one that names none gets
// silence before that.
const (
	heartbeats = 3
	silence    = 45 * time.Second
)

func silenceOf(h http.Header) time.Duration {
	if ms, err := strconv.ParseUint(h.Get("Hanse-Heartbeat"), 10, 20); err == nil && ms > 0 {
		return heartbeats * time.Duration(ms) * time.Millisecond
	}
	return silence
}

// Follow yields events as they happen. When a stream breaks it goes on behind the last event, at another node: nothing
// is left out or comes twice. It ends with an error, when ctx ends or the cluster refuses the options.
func (c *Client) Follow(ctx context.Context, o FollowOptions) iter.Seq2[Followed, error] {
	return func(yield func(Followed, error) bool) {
		o := o // each loop over the sequence begins anew
		for tries := 0; ; tries++ {
			if !c.cfg.Pinned && c.pool.due(time.Now()) {
				c.look(ctx)
			}
			n := c.pool.pick(time.Now(), nil)
			before := o.After
			goOn, err := c.stream(ctx, n, &o, yield)
			if !goOn {
				return
			}
			if o.After != before {
				tries = 0
			}
			refused, answered := errors.AsType[*Error](err)
			switch {
			case ctx.Err() != nil:
				yield(Followed{}, ctx.Err())
				return
			case answered && !refused.comesBack():
				yield(Followed{}, refused)
				return
			case answered:
				err = sleep(ctx, time.Duration(refused.RetryAfterMS)*time.Millisecond+pause(tries))
			case err != nil && c.pool.failed(n, time.Now()):
				err = nil
			default: // also a stream that ended in order: the node stops, or we were too slow for it
				err = sleep(ctx, pause(tries))
			}
			if err != nil {
				yield(Followed{}, err)
				return
			}
		}
	}
}

// stream yields the events of one stream and moves o.After along. It returns false when the caller wants no more.
func (c *Client) stream(ctx context.Context, n *node, o *FollowOptions, yield func(Followed, error) bool) (goOn bool, err error) {
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	path, query := "/v1/events", url.Values{}
	if len(o.Types) > 0 {
		query.Set("types", strings.Join(o.Types, ","))
	}
	if o.After != "" && !o.resumed { // a mistake in it is told in the caller's words
		query.Set("after", o.After)
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.base+path, nil)
	if err != nil {
		return true, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if o.resumed {
		req.Header.Set("Last-Event-ID", o.After)
	}
	setTraceparent(req)
	opening, opened := context.WithCancel(ctx)
	pulse := time.AfterFunc(silentFor, func() { c.watch(opening, n, giveUp) })
	watchdog := time.AfterFunc(c.cfg.AttemptTimeout, func() { giveUp(errSilent) })
	defer watchdog.Stop()
	resp, err := c.transport.RoundTrip(req)
	pulse.Stop()
	opened()
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	c.pool.answered(n)
	if resp.StatusCode != http.StatusOK {
		body, err := readBody(resp)
		if err != nil {
			return true, err
		}
		return true, decodeError(&response{resp.StatusCode, resp.Header, body})
	}
	patience := silenceOf(resp.Header)
	events := newEventReader(resp.Body, func() { watchdog.Reset(patience) })
	watchdog.Reset(patience)
	for {
		id, data, err := events.next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return true, err
		}
		if len(data) > 0 {
			f := Followed{Position: id}
			if err := json.Unmarshal(data, &f.Event); err != nil {
				yield(f, fmt.Errorf("client: decode event: %w", err))
				return false, nil
			}
			watchdog.Stop() // the caller may take its time, and it is not the node's silence
			// An error of the caller's, or a break, must not count the event as seen by the next loop.
			if !yield(f, nil) {
				return false, nil
			}
			watchdog.Reset(patience)
		}
		o.After, o.resumed = id, true
	}
}

// maxEvent bounds a line of a stream: an order of 2,000 lines is half a megabyte.
const maxEvent = 16 << 20

// eventReader reads server-sent events (WHATWG HTML, section 9.2): fields id and data; comments, types and reconnection
// times are of no use here.
type eventReader struct {
	lines *bufio.Scanner
	seen  func() // called for each line, comments too
	id    string // holds until another comes
	data  []byte
}

func newEventReader(r io.Reader, seen func()) *eventReader {
	e := &eventReader{lines: bufio.NewScanner(r), seen: seen}
	e.lines.Buffer(nil, maxEvent)
	return e
}

// next returns the next event's ID and data, which is valid until the next call; no data when only the ID moved. At a
// clean end it is io.EOF, and what was begun is dropped.
func (e *eventReader) next() (id string, data []byte, err error) {
	e.data = e.data[:0]
	moved := false
	for e.lines.Scan() {
		e.seen()
		line := e.lines.Bytes()
		if len(line) == 0 {
			if moved || len(e.data) > 0 {
				return e.id, bytes.TrimSuffix(e.data, []byte("\n")), nil
			}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			e.id, moved = string(value), true
		case "data":
			e.data = append(append(e.data, value...), '\n')
		}
	}
	if err := e.lines.Err(); err != nil {
		return "", nil, err
	}
	return "", nil, io.EOF
}
