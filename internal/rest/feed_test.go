package rest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hanse/api/orderpb"
	"hanse/internal/order"
)

// pipes is a listener whose connections are in memory, so that time can be virtual.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error { p.once.Do(func() { close(p.closed) }); return nil }

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// serveDoor serves a door in this bubble and returns a client of it.
func serveDoor(t *testing.T, change func(*Config)) (*http.Client, *fake) {
	cfg := DefaultConfig()
	door, f := newDoor(t, func(c *Config) {
		if change != nil {
			change(c)
		}
		cfg = *c
	})
	l := newPipes()
	server := cfg.Server(door, newDiscard())
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	transport := &http.Transport{DialContext: l.dial}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return &http.Client{Transport: transport}, f
}

// stream is the client's end of a stream.
type stream struct {
	t      *testing.T
	resp   *http.Response
	lines  *bufio.Reader
	lastID string
}

func listen(t *testing.T, c *http.Client, target string, headers ...string) *stream {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://hanse"+target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatalf("GET %s = %d %s", target, resp.StatusCode, got)
	}
	s := &stream{t: t, resp: resp, lines: bufio.NewReader(resp.Body)}
	if first := s.block(); first[0] != ": following" {
		t.Fatalf("the stream begins with %q", first)
	}
	return s
}

// block reads to the next empty line and keeps the last event ID as a browser does; nil at the end.
func (s *stream) block() []string {
	var block []string
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			return nil
		}
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			return block
		}
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			s.lastID = id
		}
		block = append(block, line)
	}
}

// event reads to the next event and returns its order's ID.
func (s *stream) event() string {
	s.t.Helper()
	for {
		block := s.block()
		if block == nil {
			return "end"
		}
		for _, line := range block {
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				var e Event
				if err := strict([]byte(data), &e); err != nil {
					s.t.Fatalf("event %s: %v", data, err)
				}
				if want := "event: " + e.Type; !slices.Contains(block, want) {
					s.t.Fatalf("block %q lacks %q", block, want)
				}
				return e.OrderID
			}
		}
	}
}

func (s *stream) close() { s.resp.Body.Close() }

func confirmed(orderID string) *orderpb.Event {
	return &orderpb.Event{OrderId: orderID, Version: 4, At: at, Detail: &orderpb.Event_Confirmed{Confirmed: &orderpb.Confirmed{}}}
}

func canceled(orderID string) *orderpb.Event {
	return &orderpb.Event{OrderId: orderID, Version: 5, At: at, Detail: &orderpb.Event_Ended{Ended: &orderpb.Ended{State: orderpb.State_CANCELED}}}
}

func TestStreamResumesWhereItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f := serveDoor(t, nil)
		f.feed.publish(1, confirmed("before"))
		s := listen(t, c, "/v1/events")
		f.feed.publish(0, confirmed("a"))
		if got := s.event(); got != "a" {
			t.Fatalf("first event is of %q, want a: the stream begins with what happens now", got)
		}
		f.feed.publish(1, confirmed("b"))
		if got := s.event(); got != "b" {
			t.Fatalf("second event is of %q, want b", got)
		}
		if s.lastID != "0:1,1:2,2:0" {
			t.Fatalf("id is %q, want 0:1,1:2,2:0", s.lastID)
		}
		s.close()
		f.feed.publish(1, confirmed("c"), confirmed("d"))
		f.feed.publish(2, confirmed("e"))

		s = listen(t, c, "/v1/events", "Last-Event-ID", s.lastID)
		var missed []string
		for range 3 {
			missed = append(missed, s.event())
		}
		if slices.Sort(missed); !slices.Equal(missed, []string{"c", "d", "e"}) {
			t.Fatalf("resumed with %q, want c, d and e", missed)
		}
		s.close()

		// Cut between two events of one batch: the rest comes, and nothing twice.
		s = listen(t, c, "/v1/events?after=1:3,0:1,2:1")
		if got := s.event(); got != "d" {
			t.Fatalf("resumed inside a batch with %q, want d", got)
		}
		s.close()

		// A Hanse-Position is a position; beyond the end there is nothing to follow.
		s = listen(t, c, "/v1/events?after=order/1:3,order/0:1,2:1")
		if got := s.event(); got != "d" {
			t.Fatalf("resumed from a Hanse-Position with %q, want d", got)
		}
		s.close()
		door, f2 := newDoor(t, nil)
		f2.feed.publish(0, confirmed("a"))
		w := ask(door, "GET", "/v1/events?after=0:2", "")
		if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "position 2 of order/0 is beyond the end of its feed, 1") {
			t.Fatalf("beyond the end = %d %s, want 400", w.Code, w.Body)
		}

		s = listen(t, c, "/v1/events?after=start")
		var all []string
		for range 6 {
			all = append(all, s.event())
		}
		if slices.Sort(all); !slices.Equal(all, []string{"a", "b", "before", "c", "d", "e"}) {
			t.Fatalf("from the start came %q", all)
		}
		s.close()
		synctest.Wait()
		if n := f.feed.followers(); n != 0 {
			t.Fatalf("%d still follow the feed after their clients left", n)
		}
	})
}

// A filter hides events, but the client's last ID moves past them, so that it does not ask for them again.
func TestStreamFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f := serveDoor(t, nil)
		s := listen(t, c, "/v1/events?types=payment.*,order.canceled")
		f.feed.publish(0, confirmed("a"))
		if block := s.block(); !slices.Equal(block, []string{"id: 0:1,1:0,2:0"}) {
			t.Fatalf("an event that is not wanted sends %q, want its id alone", block)
		}
		f.feed.publish(0, confirmed("b"), canceled("c"), confirmed("d"))
		if got := s.event(); got != "c" || s.lastID != "0:3,1:0,2:0" {
			t.Fatalf("event of %q at %q, want c at 0:3,1:0,2:0", got, s.lastID)
		}
		if s.block(); s.lastID != "0:4,1:0,2:0" {
			t.Fatalf("id after the batch is %q, want 0:4,1:0,2:0", s.lastID)
		}
		s.close()
	})
}

func TestStreamHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f := serveDoor(t, func(c *Config) { c.MaxWait, c.Wait, c.RequestTimeout = time.Second, 0, time.Second })
		s := listen(t, c, "/v1/events")
		start := time.Now()
		const beats = 80
		for range beats {
			if block := s.block(); !slices.Equal(block, []string{": heartbeat"}) {
				t.Fatalf("a silent stream sends %q, want heartbeats", block)
			}
		}
		if took := time.Since(start); took != beats*1500*time.Millisecond {
			t.Errorf("%d heartbeats took %v, want 2m0s", beats, took)
		}
		f.feed.publish(2, confirmed("a")) // long past every other timeout of the server
		if got := s.event(); got != "a" {
			t.Errorf("after the heartbeats came %q, want a", got)
		}
		s.close()
	})
}

func TestStreamEnds(t *testing.T) {
	for name, end := range map[string]func(*fake, chan struct{}){
		"when the node drains":  func(_ *fake, drain chan struct{}) { close(drain) },
		"when the feed ends":    func(f *fake, _ chan struct{}) { f.feed.fail(context.Canceled) },
		"when a shard is wrong": func(f *fake, _ chan struct{}) { f.feed.fail(errors.New("decode event")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				drain := make(chan struct{})
				c, f := serveDoor(t, func(c *Config) { c.Drain = drain })
				s := listen(t, c, "/v1/events")
				end(f, drain)
				if rest, err := io.ReadAll(s.lines); err != nil || len(rest) > 0 {
					t.Errorf("the stream ended with %q, %v, want nothing", rest, err)
				}
				synctest.Wait()
				if n := f.feed.followers(); n != 0 {
					t.Errorf("%d still follow the feed", n)
				}
				s.close()
			})
		})
	}
}

// A client that stops reading is cut off, and holds neither a goroutine nor anybody else up.
func TestStreamOfSlowClientEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, f := serveDoor(t, nil)
		slow := listen(t, c, "/v1/events")
		quick := listen(t, c, "/v1/events")
		for i := range 500 { // more than the buffers on the way hold
			f.feed.publish(0, confirmed(fmt.Sprint(strings.Repeat("x", 100), i)))
			quick.event()
		}
		synctest.Wait()
		if n := f.feed.followers(); n != 2 {
			t.Fatalf("%d follow the feed, want 2", n)
		}
		deadline := time.Now().Add(10 * 15 * time.Second)
		for f.feed.followers() == 2 && time.Now().Before(deadline) {
			if block := quick.block(); !slices.Equal(block, []string{": heartbeat"}) {
				t.Fatalf("the other stream gets %q", block)
			}
			synctest.Wait()
		}
		if n := f.feed.followers(); n != 1 {
			t.Errorf("%d follow the feed, want 1: the slow client should be gone", n)
		}
		slow.close()
		quick.close()
	})
}

func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := serveDoor(t, func(c *Config) { c.MaxStreams = 2 })
		first, second := listen(t, c, "/v1/events"), listen(t, c, "/v1/events")
		resp, err := c.Get("http://hanse/v1/events")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "1" {
			t.Errorf("a third stream gets %d, Retry-After %q, want 429 and 1", resp.StatusCode, resp.Header.Get("Retry-After"))
		}
		first.close()
		synctest.Wait()
		listen(t, c, "/v1/events").close()
		second.close()
	})
}

func TestHeadOfStreamEnds(t *testing.T) {
	door, _ := newDoor(t, nil)
	w := ask(door, http.MethodHead, "/v1/events", "")
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/event-stream" || w.Body.Len() != 0 {
		t.Errorf("HEAD /v1/events = %d %v %q", w.Code, w.Header(), w.Body)
	}
}

func TestFeedEventOfUnknownShard(t *testing.T) {
	for _, shard := range []int{-1, 3} {
		if _, err := appendFeed(nil, make([]uint64, 3), []FeedEvent{{Shard: shard, Event: confirmed("a")}}, nil); err == nil {
			t.Errorf("an event of shard %d of 3 is sent on", shard)
		}
	}
}

func FuzzPositions(f *testing.F) {
	for _, s := range []string{"start", "0:1,1:2,2:3", "2:18446744073709551615", "0:1,0:2", "", ",", "a:b", "0:-1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		positions, err := parsePositions(s, 3)
		if err != nil {
			return
		}
		again, err := parsePositions(string(appendPositions(nil, positions)), 3)
		if err != nil || !slices.Equal(again, positions) {
			t.Fatalf("%q is %v, which is written and read as %v, %v", s, positions, again, err)
		}
	})
}

// Every event has a type that can be filtered, data, and a sentence.
func TestEveryKindOfEventIsTold(t *testing.T) {
	list := sampleEvents()
	if got, want := len(list.Events), len(order.Kinds()); got != want {
		t.Fatalf("there are samples of %d kinds, want %d", got, want)
	}
	seen := map[order.Kind]bool{}
	for _, e := range list.Events {
		seen[order.KindOf(e)] = true
		var told Event
		if err := strict(AppendEvent(nil, 7, e), &told); err != nil {
			t.Errorf("%v: %v", order.KindOf(e), err)
		}
		for member, kind := range map[string]string{"order": "Order", "fulfillment": "Fulfillment", "return": "Return", "refund": "Refund", "step": "StuckStep"} {
			if part, ok := told.Data[member]; ok {
				data, err := json.Marshal(part)
				if err == nil {
					err = description().check(kind, data)
				}
				if err != nil {
					t.Errorf("%s: its %s is not what the document says: %v", told.Type, member, err)
				}
			}
		}
		if wanted, err := eventTypes(told.Type); err != nil || !wanted(told.Type) {
			t.Errorf("%s cannot be asked for: %v", told.Type, err)
		}
		if len(told.Data) == 0 && order.KindOf(e) != order.KindConfirmed {
			t.Errorf("%s has no data", told.Type)
		}
		if cause, text := newNarrator("EUR").tell(e); cause == "unknown" || !strings.HasSuffix(text, ".") && order.KindOf(e) != order.KindStockRefused && order.KindOf(e) != order.KindStepStuck {
			t.Errorf("%s is told as %q by %q", told.Type, text, cause)
		}
	}
	for _, k := range order.Kinds() {
		if !seen[k] {
			t.Errorf("no sample of %v", k)
		}
	}
	if cause, text := newNarrator("EUR").tell(&orderpb.Event{}); cause != "unknown" || text == "" {
		t.Errorf("an event of a later version is told as %q by %q", text, cause)
	}
}
