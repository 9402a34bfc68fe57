package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"hanse/api/notificationpb"
	"hanse/api/orderpb"
	"hanse/internal/clock"
	"hanse/internal/hlc"
	"hanse/internal/notification"
	"hanse/internal/reject"
	"hanse/internal/rest"
	"hanse/internal/shard"
	"hanse/internal/shard/notificationshard"
	"hanse/internal/store/memstore"
)

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// deliveryLab is the cluster as webhooks see it, with a real notification shard, and the receivers, on connections in memory.
type deliveryLab struct {
	t    *testing.T
	feed *feedSignal

	mu       sync.Mutex
	shard    shard.Machine
	index    uint64
	feeds    [][]*orderpb.Event
	versions map[string]uint64
	down     error // of the cluster
	advances int
	reads    int

	webhooks *webhooks // of the last node that was started
	network  memoryNetwork
	got      []string // "order.version" as accepted by receivers
	asked    int
	answer   func(w http.ResponseWriter, id string) // nil accepts
	before   func(*http.Request)                    // called first, unless nil
}

// memoryNetwork is a listener whose connections are pipes, so that a bubble's time goes on while they wait.
type memoryNetwork chan net.Conn

func (n memoryNetwork) Accept() (net.Conn, error) {
	c, ok := <-n
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (n memoryNetwork) Close() error   { close(n); return nil }
func (n memoryNetwork) Addr() net.Addr { return &net.TCPAddr{} }

func (n memoryNetwork) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case n <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// deliveryTest runs fn in a bubble with one node that leads and one receiver, "wh", of everything.
func deliveryTest(t *testing.T, fn func(l *deliveryLab)) {
	synctest.Test(t, func(t *testing.T) {
		machine, err := shard.Open(memstore.NewDisk().Open(), []byte("s/"), notificationshard.New())
		if err != nil {
			t.Fatal(err)
		}
		l := &deliveryLab{
			t: t, feed: newFeedSignal(), shard: machine, feeds: make([][]*orderpb.Event, 3), versions: make(map[string]uint64),
			network: make(memoryNetwork),
		}
		server := &http.Server{Handler: l}
		go func() { _ = server.Serve(l.network) }()
		defer server.Close()
		l.create(&notificationpb.CreateEndpoint{Id: "wh", Url: "http://receiver/hook", Secret: testSecret, Shards: 3})
		fn(l)
	})
}

// node starts a node's deliveries. It leads until stop.
func (l *deliveryLab) node() (stop func()) {
	w := newWebhooks(l, false, clock.New(time.Now), slog.New(slog.DiscardHandler))
	w.http.Transport.(*http.Transport).DialContext = l.network.dial
	l.webhooks = w
	ctx, cancel := context.WithCancel(l.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx) }()
	w.lead(true)
	return sync.OnceFunc(func() {
		w.lead(false)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			l.t.Errorf("run: %v", err)
		}
	})
}

func (l *deliveryLab) create(c *notificationpb.CreateEndpoint) {
	l.apply(&notificationpb.Command{Body: &notificationpb.Command_Create{Create: c}})
}

func (l *deliveryLab) apply(c *notificationpb.Command) shard.Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index++
	return l.shard.Apply(shard.Entry{
		Index: l.index, Time: hlc.FromMillis(time.Now().UnixMilli()), Commands: []shard.Command{{Kind: shard.KindLogic, Payload: encode(c)}},
	}).Results[0]
}

// publish adds one event to the feed for each order named; the shard is the order's last character.
func (l *deliveryLab) publish(orders ...string) {
	l.mu.Lock()
	for _, o := range orders {
		l.versions[o]++
		i := int(o[len(o)-1] - '0')
		l.feeds[i] = append(l.feeds[i], &orderpb.Event{
			OrderId: o, Version: l.versions[o], At: time.Now().UnixMilli(),
			Detail: &orderpb.Event_PaymentCaptured{PaymentCaptured: &orderpb.PaymentCaptured{Amount: 100}},
		})
	}
	l.mu.Unlock()
	l.feed.raise()
}

func (l *deliveryLab) endpoint() *notificationpb.Endpoint {
	l.t.Helper()
	a, err := l.Endpoints(l.t.Context())
	if err != nil || len(a.Value.Endpoints) == 0 {
		l.t.Fatalf("endpoints: %v, %v", a.Value, err)
	}
	return a.Value.Endpoints[0]
}

func (l *deliveryLab) Endpoints(context.Context) (a rest.Answer[*notificationpb.EndpointList], err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down != nil {
		return a, l.down
	}
	r := l.shard.Query(encode(&notificationpb.Query{Body: &notificationpb.Query_List{List: &notificationpb.ListEndpoints{}}}))
	a.Value, err = decode[notificationpb.EndpointList](r.Payload)
	return a, err
}

func (l *deliveryLab) readFeed(_ context.Context, index int, after uint64, limit int) (*orderpb.FeedPage, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	if l.down != nil {
		return nil, l.down
	}
	all := l.feeds[index]
	page := all[min(after, uint64(len(all))):]
	return &orderpb.FeedPage{First: after + 1, Events: page[:min(limit, len(page))], Last: uint64(len(all))}, nil
}

func (l *deliveryLab) advance(_ context.Context, a *notificationpb.Advance) error {
	l.mu.Lock()
	l.advances++
	down := l.down
	l.mu.Unlock()
	if down != nil {
		return down
	}
	if r := l.apply(&notificationpb.Command{Body: &notificationpb.Command_Advance{Advance: a}}); !r.OK() {
		return rejection(r)
	}
	return nil
}

func (l *deliveryLab) published() <-chan struct{} { return l.feed.wait() }

// ServeHTTP is the receiver: it verifies, answers, and notes what it has accepted.
func (l *deliveryLab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if l.before != nil {
		l.before(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	id := r.Header.Get("Webhook-Id")
	stamp, _ := strconv.ParseInt(r.Header.Get("Webhook-Timestamp"), 10, 64)
	if err := notification.Verify(testSecret, id, stamp, r.Header.Get("Webhook-Signature"), body, time.Now().Unix()); err != nil {
		l.t.Errorf("delivery %s: %v", id, err)
	}
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || !strings.Contains(string(body), `"id":"`+id+`"`) {
		l.t.Errorf("delivery %s: %s %s %s", id, r.Method, r.Header.Get("Content-Type"), body)
	}
	l.mu.Lock()
	l.asked++
	answer := l.answer
	l.mu.Unlock()
	rec := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	if answer != nil {
		answer(rec, id)
	}
	if rec.status == http.StatusOK {
		l.mu.Lock()
		l.got = append(l.got, id)
		l.mu.Unlock()
	}
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (l *deliveryLab) set(fn func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn()
}

// answers makes the receiver answer with a status.
func (l *deliveryLab) answers(status int) {
	l.set(func() { l.answer = func(w http.ResponseWriter, _ string) { w.WriteHeader(status) } })
}

// count reads one of the counters.
func (l *deliveryLab) count(n *int) (v int) {
	l.set(func() { v = *n })
	return v
}

// received returns what was accepted so far, in order, and forgets it.
func (l *deliveryLab) received() (got []string) {
	l.set(func() { got, l.got = l.got, nil })
	return got
}

func TestWebhooks_deliver_in_order_and_record_in_batches(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		defer l.node()()
		for range 10 {
			for o := range 30 {
				l.publish(fmt.Sprintf("o%d-%d", o, o%3))
			}
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(2 * time.Second)
		got := l.received()
		if len(got) != 300 {
			t.Fatalf("%d deliveries, want 300", len(got))
		}
		last := make(map[string]int)
		for _, id := range got {
			o, v, _ := strings.Cut(id, ".")
			if version, _ := strconv.Atoi(v); version != last[o]+1 {
				t.Errorf("%s came after version %d of the order", id, last[o])
			}
			last[o]++
		}
		if e := l.endpoint(); e.Delivered != 300 || !slices.Equal(e.Cursors, []uint64{100, 100, 100}) {
			t.Errorf("recorded: %v", e)
		}
		if n := l.count(&l.advances); n > 15 {
			t.Errorf("%d records for 300 deliveries in 3 s, want a few for each second and shard", n)
		}
	})
}

func TestWebhooks_are_woken_by_events(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		defer l.node()()
		time.Sleep(time.Minute) // idle
		if n := l.count(&l.reads); n > 3*61 {
			t.Errorf("the three feeds were read %d times within a minute without events", n)
		}
		l.publish("a0")
		time.Sleep(webhookReadPause)
		synctest.Wait()
		if got := l.received(); !slices.Equal(got, []string{"a0.1"}) {
			t.Errorf("%v after %v, want the event", got, webhookReadPause)
		}
	})
}

func TestWebhooks_ask_for_little_when_there_are_no_receivers(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		l.apply(&notificationpb.Command{Body: &notificationpb.Command_Delete{Delete: &notificationpb.DeleteEndpoint{Id: "wh"}}})
		defer l.node()()
		for range 1000 {
			l.publish("a0")
			time.Sleep(10 * time.Millisecond)
		}
		if n := l.count(&l.reads); n != 0 {
			t.Errorf("the feeds were read %d times for nobody", n)
		}
		l.feed.mu.Lock()
		defer l.feed.mu.Unlock()
		if l.feed.waiting {
			t.Error("somebody waits for events")
		}
	})
}

func TestWebhooks_go_on_from_the_record(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		stop := l.node()
		l.publish("a0", "b1", "a0")
		time.Sleep(200 * time.Millisecond) // not yet time to record
		stop()
		if e := l.endpoint(); e.Delivered != 3 {
			t.Errorf("the end of the leadership has recorded %d deliveries, want 3", e.Delivered)
		}
		l.publish("a0")
		time.Sleep(time.Minute)
		if got := l.received(); len(got) != 3 {
			t.Errorf("received %v, want nothing while nobody leads", got)
		}
		defer l.node()()
		time.Sleep(3 * time.Second)
		if got := l.received(); !slices.Equal(got, []string{"a0.3"}) {
			t.Errorf("the next leader has delivered %v, want what was missing", got)
		}
	})
}

func TestWebhooks_pause_between_leaderships(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		defer l.node()()
		l.publish("a0")
		time.Sleep(time.Second)
		l.webhooks.lead(false)
		time.Sleep(time.Second)
		l.publish("a0")
		time.Sleep(time.Minute)
		if got := l.received(); !slices.Equal(got, []string{"a0.1"}) {
			t.Errorf("received %v, want nothing while another node leads", got)
		}
		// Another node has delivered meanwhile, which this one learns from the record.
		if err := l.advance(t.Context(), &notificationpb.Advance{Id: "wh", Cursor: 2, Delivered: 1}); err != nil {
			t.Fatal(err)
		}
		l.publish("a0")
		l.webhooks.lead(true)
		time.Sleep(time.Second)
		if got := l.received(); !slices.Equal(got, []string{"a0.3"}) {
			t.Errorf("received %v, want what came after the record", got)
		}
		// A leadership that was lost and won between two looks begins from the record too.
		l.webhooks.lead(false)
		if err := l.advance(t.Context(), &notificationpb.Advance{Id: "wh", Cursor: 4}); err != nil {
			t.Fatal(err)
		}
		l.webhooks.lead(true)
		synctest.Wait() // until then the follower of before may deliver
		l.publish("a0", "a0")
		time.Sleep(2 * time.Second)
		if got := l.received(); !slices.Equal(got, []string{"a0.5"}) {
			t.Errorf("received %v, want what came after the newer record", got)
		}
	})
}

func TestWebhooks_do_not_follow_redirects(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		var hosts []string
		l.before = func(r *http.Request) { hosts = append(hosts, r.Host) }
		l.answer = func(w http.ResponseWriter, _ string) {
			w.Header().Set("Location", "http://inside/secrets")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}
		defer l.node()()
		l.publish("a0")
		time.Sleep(2 * time.Second)
		if e := l.endpoint(); !slices.Equal(hosts, []string{"receiver"}) || len(e.Parked) != 1 || !strings.Contains(e.Parked[0].Error, "307") {
			t.Errorf("requests to %v, parked %v", hosts, e.Parked)
		}
	})
}

func TestWebhooks_deliver_again_what_was_not_recorded(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		stop := l.node()
		l.publish("a0")
		time.Sleep(100 * time.Millisecond)
		l.set(func() { l.down = errors.New("no leader") })
		stop()
		l.set(func() { l.down = nil })
		defer l.node()()
		time.Sleep(3 * time.Second)
		if got := l.received(); !slices.Equal(got, []string{"a0.1", "a0.1"}) {
			t.Errorf("received %v, want the event from both leaders", got)
		}
	})
}

func TestWebhooks_outlive_an_outage_of_the_cluster(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		defer l.node()()
		l.publish("a0")
		time.Sleep(100 * time.Millisecond)
		l.set(func() { l.down = errors.New("no leader") })
		time.Sleep(5 * time.Minute)
		l.publish("a0", "b2")
		time.Sleep(5 * time.Minute)
		l.set(func() { l.down = nil })
		time.Sleep(15 * time.Second)
		if got := l.received(); !slices.Equal(got, []string{"a0.1", "a0.2", "b2.1"}) && !slices.Equal(got, []string{"a0.1", "b2.1", "a0.2"}) {
			t.Errorf("received %v, want each once", got)
		}
		if e := l.endpoint(); !slices.Equal(e.Cursors, []uint64{2, 0, 1}) || e.Delivered != 3 {
			t.Errorf("recorded: %v", e)
		}
		if n := l.count(&l.advances); n > 1000 {
			t.Errorf("%d attempts to record within ten minutes", n)
		}
	})
}

func TestWebhooks_of_one_receiver_do_not_hold_up_another(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		l.create(&notificationpb.CreateEndpoint{Id: "slow", Url: "http://slow/hook", Secret: testSecret, Shards: 3})
		slow := make(chan struct{})
		l.before = func(r *http.Request) {
			if r.Host == "slow" {
				<-slow
			}
		}
		defer l.node()()
		defer close(slow)
		for range 10 {
			l.publish("a0", "b1", "c2")
			time.Sleep(time.Second)
		}
		if got := l.received(); len(got) != 30 {
			t.Errorf("the fast receiver has got %d events, want 30", len(got))
		}
	})
}

func TestWebhooks_park_one_event_and_deliver_the_others(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		l.answer = func(w http.ResponseWriter, id string) {
			if id == "a0.1" {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}
		defer l.node()()
		l.publish("a0", "b0", "a0", "c1")
		time.Sleep(2 * time.Second)
		got := l.received()
		slices.Sort(got)
		if !slices.Equal(got, []string{"b0.1", "c1.1"}) {
			t.Errorf("received %v, want the other orders' events", got)
		}
		e := l.endpoint()
		if e.Cursors[0] != 3 || len(e.Parked) != 2 || e.Failed != 1 || !strings.Contains(e.Parked[0].Error, "500") {
			t.Fatalf("recorded: %v", e)
		}
		l.set(func() { l.answer = nil })
		time.Sleep(4 * time.Second) // 5 s and up to a tenth after the first attempt
		if got := l.received(); !slices.Equal(got, []string{"a0.1", "a0.2"}) {
			t.Errorf("then received %v, want what was parked, in order", got)
		}
		time.Sleep(2 * time.Second)
		if e := l.endpoint(); len(e.Parked) != 0 || e.Delivered != 4 {
			t.Errorf("recorded: %v", e)
		}
	})
}

func TestWebhooks_survive_an_outage_of_the_receiver(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		l.answers(http.StatusInternalServerError)
		defer l.node()()
		want := 0
		for range 300 { // for five minutes, ten events a second
			for o := range 10 {
				l.publish(fmt.Sprintf("o%d-%d", o, o%3))
				want++
			}
			time.Sleep(time.Second)
		}
		if e := l.endpoint(); e.Disabled || len(e.Parked) > 100 {
			t.Fatalf("disabled %v (%s), %d parked: want the events to wait in the feed", e.Disabled, e.DisabledReason, len(e.Parked))
		}
		if cause, at := notification.LastFailure(l.endpoint()); cause != "the receiver answered 500 Internal Server Error" || time.Since(time.UnixMilli(at)) > 5*time.Minute {
			t.Errorf("the last failure is %q at %v, want the 500 of the last minutes", cause, time.UnixMilli(at))
		}
		if n := l.count(&l.asked); n > 100 {
			t.Errorf("%d attempts in five minutes without success", n)
		}
		l.set(func() { l.answer = nil })
		time.Sleep(10 * time.Minute)
		if got := len(l.received()); got != want {
			t.Errorf("%d of %d events have arrived afterwards", got, want)
		}
		if cause, _ := notification.LastFailure(l.endpoint()); cause != "" {
			t.Errorf("the last failure is %q after everything has arrived", cause)
		}
	})
}

func TestWebhooks_end_with_the_receiver(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer int
		tried  uint32 // times before
		reason string
	}{
		{"gone", http.StatusGone, 0, "410 Gone"},
		{"failing for days", http.StatusInternalServerError, 9, "tried 10 times: the receiver answered 500"},
		{"unavailable for days", http.StatusServiceUnavailable, 9, "tried 10 times: the receiver answered 503"},
		{"redirecting for days", http.StatusFound, 9, "302 Found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			deliveryTest(t, func(l *deliveryLab) {
				l.answers(c.answer)
				l.publish("a0")
				if c.tried > 0 {
					p := &notificationpb.Parked{Position: 1, OrderId: "a0", Attempts: c.tried, NextTry: time.Now().Add(30 * time.Second).UnixMilli()}
					if err := l.advance(t.Context(), &notificationpb.Advance{Id: "wh", Cursor: 1, Park: []*notificationpb.Parked{p}}); err != nil {
						t.Fatal(err)
					}
				}
				defer l.node()()
				time.Sleep(time.Minute)
				e := l.endpoint()
				if !e.Disabled || !strings.Contains(e.DisabledReason, c.reason) {
					t.Fatalf("disabled %v, %q; want %q", e.Disabled, e.DisabledReason, c.reason)
				}
				asked := l.count(&l.asked)
				l.publish("a0")
				time.Sleep(10 * time.Minute)
				if n := l.count(&l.asked); n != asked {
					t.Errorf("%d deliveries to a receiver that is disabled", n-asked)
				}
				l.set(func() { l.answer = nil })
				l.apply(&notificationpb.Command{Body: &notificationpb.Command_Enable{Enable: &notificationpb.EnableEndpoint{Id: "wh"}}})
				time.Sleep(10 * time.Second)
				if got := l.received(); !slices.Equal(got, []string{"a0.1", "a0.2"}) {
					t.Errorf("enabled again, received %v, want everything", got)
				}
			})
		})
	}
}

func TestWebhooks_leave_a_throttled_receiver_alone(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		l.answer = func(w http.ResponseWriter, _ string) {
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(http.StatusTooManyRequests)
		}
		defer l.node()()
		l.publish("a0")
		time.Sleep(599 * time.Second)
		if n := l.count(&l.asked); n != 1 {
			t.Errorf("asked %d times within the time it wanted to be left alone", n)
		}
		l.set(func() { l.answer = nil })
		time.Sleep(3 * time.Second)
		if got := l.received(); !slices.Equal(got, []string{"a0.1"}) {
			t.Errorf("then received %v", got)
		}
	})
}

func TestWebhooks_give_up_a_receiver_that_does_not_answer(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		hang := make(chan struct{})
		l.answer = func(http.ResponseWriter, string) { <-hang }
		defer l.node()()
		defer close(hang)
		l.publish("a0")
		time.Sleep(webhookTimeout + 2*time.Second)
		e := l.endpoint()
		if len(e.Parked) != 1 || e.Parked[0].Error != "no answer within 15s" {
			t.Errorf("parked: %v", e.Parked)
		}
	})
}

func TestWebhooks_end_when_the_receiver_is_deleted(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		defer l.node()()
		l.publish("a0")
		time.Sleep(100 * time.Millisecond)
		l.apply(&notificationpb.Command{Body: &notificationpb.Command_Delete{Delete: &notificationpb.DeleteEndpoint{Id: "wh"}}})
		time.Sleep(2 * time.Second)
		l.publish("a0")
		time.Sleep(time.Minute)
		if got := l.received(); !slices.Equal(got, []string{"a0.1"}) {
			t.Errorf("received %v, want nothing after the deletion", got)
		}
	})
}

func TestWebhooks_deliver_wanted_types_only(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		l.apply(&notificationpb.Command{Body: &notificationpb.Command_Delete{Delete: &notificationpb.DeleteEndpoint{Id: "wh"}}})
		l.create(&notificationpb.CreateEndpoint{Id: "few", Url: "http://few/", Secret: testSecret, Shards: 3, Types: []string{"order.placed"}})
		defer l.node()()
		l.publish("a0", "b1")
		time.Sleep(webhookRecordIdle + webhookPoll)
		if got := l.received(); len(got) > 0 {
			t.Errorf("received %v, want no captures", got)
		}
		if e, n := l.endpoint(), l.count(&l.advances); !slices.Equal(e.Cursors, []uint64{1, 1, 0}) || n > 3 {
			t.Errorf("cursors %v after %d records", e.Cursors, n)
		}
	})
}

func TestRetryAfterOf(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-5": 0, "1e9": 0, "soon": 0, "99999999999999999999": 0,
		"Thu, 01 Jan 2026 12:01:30 GMT": 90 * time.Second, "Thu, 01 Jan 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfterOf(header, now); got != want {
			t.Errorf("retryAfterOf(%q) = %v, want %v", header, got, want)
		}
	}
}

func TestCheckPublic(t *testing.T) {
	for _, ok := range []string{"1.1.1.1", "93.184.216.34", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"} {
		if err := checkPublic(net.JoinHostPort(ok, "443")); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		"127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0.0.0.0", "0.1.2.3",
		"100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::7f00:1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1",
		"ff02::1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "100::1",
	} {
		if err := checkPublic(net.JoinHostPort(bad, "80")); err == nil {
			t.Errorf("%s is taken for public", bad)
		}
	}
	for _, garbage := range []string{"", "localhost:80", "1.1.1.1", "0177.0.0.1:80"} {
		if err := checkPublic(garbage); err == nil {
			t.Errorf("%q was accepted", garbage)
		}
	}
}

// An address that no node would connect to is refused when the receiver is made; a name may lead anywhere later.
func TestClient_refuses_receivers_that_are_not_public(t *testing.T) {
	for target, public := range map[string]bool{
		"https://example.com/hook": true, "http://localhost/": true, "https://93.184.216.34:8443/": true, "https://127.0.0.1/": false,
		"http://10.0.0.1:80/": false, "http://[::1]/": false, "http://[fe80::1%25eth0]:80/": false, "http://169.254.169.254/": false,
	} {
		err := checkReceiver(target)
		if isRejected(err, reject.InvalidRequest) == public || (err == nil) != public {
			t.Errorf("%s: %v, want public %v", target, err, public)
		}
	}
	c := clientOf(&register{})
	c.publicOnly = true
	if _, err := c.CreateEndpoint(t.Context(), rest.Request{}, "http://10.0.0.1/", nil); !isRejected(err, reject.InvalidRequest) {
		t.Errorf("CreateEndpoint = %v, want %s", err, reject.InvalidRequest)
	}
}

// What a rejection means is decided by its code: anything but a deleted receiver is tried again.
func TestAdvanceRejections(t *testing.T) {
	deliveryTest(t, func(l *deliveryLab) {
		err := l.advance(t.Context(), &notificationpb.Advance{Id: "nobody"})
		var refused *reject.Rejection
		if !errors.As(err, &refused) || refused.Code != reject.EndpointNotFound {
			t.Errorf("advance of an unknown receiver: %v", err)
		}
	})
}
