package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/clock"
	"hanse/internal/cluster"
	"hanse/internal/id"
	"hanse/internal/payment"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/transport"
)

// outboxes is a replica whose outbox holds one message for another shard, and counts what is proposed to that.
type outboxes struct {
	to       shard.ID
	mu       sync.Mutex
	proposed int
}

type machine struct {
	shard.Machine
	messages []*shard.Message
}

func (m machine) Outbox() []*shard.Message { return m.messages }

func (o *outboxes) Do(_ context.Context, _ shard.ID, fn func(shard.Machine)) error {
	fn(machine{messages: []*shard.Message{{Seq: 1, To: o.to, Payload: []byte("reserve")}}})
	return nil
}

func (o *outboxes) Propose(id shard.ID, _ shard.Command, _ replica.Manner, _ time.Time, done func(shard.Result, error)) {
	o.mu.Lock()
	if id == o.to { // the other is told of the answer
		o.proposed++
	}
	o.mu.Unlock()
	done(shard.Result{}, nil)
}

func (o *outboxes) Read(shard.ID, replica.Consistency, uint64, []byte, time.Time, func(shard.Result, error)) {
}

func (o *outboxes) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.proposed
}

// The leader's log names what waits for a person, and what does not any more.
func TestCourier_logs_what_is_stuck(t *testing.T) {
	var out strings.Builder
	to := shard.NewID(shard.Order, 0)
	c := newCourier(newRouter(1, &outboxes{to: to}, nil, nil), shard.DefaultLayout(), nil, clock.New(time.Now), slog.New(slog.NewTextHandler(&out, nil)))
	stuck := shard.Applied{Stuck: []shard.StuckNote{{Key: "ord_1", Step: "capture", Cause: "expired_card"}}}
	c.Applied(to, false, stuck)
	c.Applied(to, true, stuck)
	c.Applied(to, true, shard.Applied{Stuck: []shard.StuckNote{{Key: "ord_1", Over: true}}})
	var lines []string
	for line := range strings.Lines(out.String()) {
		_, line, _ = strings.Cut(line, " ") // the time
		lines = append(lines, line)
	}
	want := []string{
		"level=WARN msg=\"step is stuck\" shard=order/0 order_id=ord_1 step=capture err=expired_card\n",
		"level=INFO msg=\"stuck step goes on\" shard=order/0 order_id=ord_1\n",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("the log has %q, want %q", lines, want)
	}
}

// A group that the cluster has gone on without, by an unsafe recovery, can elect when its nodes come back: what it holds must reach
// nobody.
func TestCourier_delivers_nothing_of_a_shard_that_this_node_may_not_serve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		from, to := shard.NewID(shard.Order, 0), shard.NewID(shard.Inventory, 0)
		o := &outboxes{to: to}
		r := newRouter(1, o, nil, map[shard.ID][]transport.NodeID{from: {1}, to: {1}})
		var confirmed atomic.Bool
		r.serves = func(id shard.ID) bool { return id == to || confirmed.Load() }
		r.observe(to, 1)
		c := newCourier(r, shard.DefaultLayout(), nil, clock.New(time.Now), slog.New(slog.DiscardHandler))
		c.replicas, c.leads = o, func(shard.ID, uint64, bool) {}
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = c.run(ctx) }) // it has no errors
		defer running.Wait()
		defer stop()

		c.Leader(from, 7, true)
		time.Sleep(time.Minute)
		if n := o.count(); n != 0 {
			t.Fatalf("%d deliveries while the plan is not confirmed", n)
		}
		c.Leader(from, 7, false)
		confirmed.Store(true)
		time.Sleep(time.Second)
		if n := o.count(); n != 0 {
			t.Fatalf("%d deliveries of a shard that is led elsewhere", n)
		}
		confirmed.Store(false)
		c.Leader(from, 9, true)
		time.Sleep(time.Second)
		confirmed.Store(true)
		time.Sleep(2 * courierTick)
		if n := o.count(); n != 1 {
			t.Errorf("%d deliveries after it was confirmed, want one", n)
		}
	})
}

// desk is a replica and a provider that note what comes to them, in order.
type desk struct {
	outboxes
	noted []string
	last  shard.Command
}

func (d *desk) Do(_ context.Context, calls []*paymentpb.ProviderCall) []*paymentpb.ProviderAnswer {
	d.noted = append(d.noted, "called "+calls[0].GetKey())
	return []*paymentpb.ProviderAnswer{{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "ref"}}
}

func (d *desk) Propose(to shard.ID, c shard.Command, m replica.Manner, _ time.Time, done func(shard.Result, error)) {
	if told, err := decode[orderpb.Command](c.Payload); err == nil && told.GetAuthorized() != nil {
		d.noted = append(d.noted, fmt.Sprintf("%s is told %d %s", to, told.GetAuthorized().GetAmount(), told.GetAuthorized().GetProviderReference()))
		done(shard.Result{}, nil)
		return
	}
	d.noted, d.last = append(d.noted, fmt.Sprintf("logged, wait %v", m.Wait)), c
	done(shard.Result{Pending: "p"}, nil)
}

func TestCourier_calls_the_provider_before_the_leader_logs_an_authorization(t *testing.T) {
	to, elsewhere := shard.NewID(shard.Payment, 0), shard.NewID(shard.Payment, 1)
	authorize := &paymentpb.Authorize{PaymentId: "pay_1", OrderId: id.New(id.Order, 7, 0, 1), Amount: 3, Currency: "EUR", CallFirst: true}
	first := encode(&paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: authorize}})
	for _, test := range []struct {
		name    string
		to      shard.ID
		command shard.Command
		want    []string
	}{
		{"one that asks for it", to, shard.Command{Kind: shard.KindLogic, Payload: first}, []string{"called pay_1.auth", "logged, wait true", "order/0 is told 3 ref"}},
		{"one that does not", to, shard.Command{Kind: shard.KindLogic, Payload: payment.Again(first)}, []string{"logged, wait true"}},
		{"of another service", shard.NewID(shard.Order, 0), shard.Command{Kind: shard.KindLogic, Payload: first}, []string{"logged, wait true"}},
		{"an answer", to, shard.Command{Kind: shard.KindReply, Payload: first}, []string{"logged, wait true"}},
		{"not led here", elsewhere, shard.Command{Kind: shard.KindLogic, Payload: first}, []string{"logged, wait true"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &desk{}
				r := newRouter(1, d, nil, map[shard.ID][]transport.NodeID{to: {1}, elsewhere: {1}, shard.NewID(shard.Order, 0): {1}})
				r.observe(to, 1)
				r.observe(shard.NewID(shard.Order, 0), 1)
				c := newCourier(r, shard.DefaultLayout(), calls(d.Do), clock.New(time.Now), slog.New(slog.DiscardHandler))
				ctx, stop := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { _ = c.run(ctx) }) // it has no errors
				defer running.Wait()
				defer stop()
				var got shard.Result
				r.attempt(1, &request{op: opPropose, shard: test.to, command: test.command, wait: true}, time.Now().Add(time.Second),
					func(result shard.Result, _ error) { got = result })
				synctest.Wait()
				if !slices.Equal(d.noted, test.want) || got.Pending != "p" {
					t.Fatalf("%q, answered %+v; want %q", d.noted, got, test.want)
				}
				if len(test.want) == 1 {
					return
				}
				logged, err := decode[paymentpb.Command](d.last.Payload)
				if err != nil || logged.GetAuthorize().GetAnswer().GetReference() != "ref" || logged.GetAuthorize().GetAmount() != 3 {
					t.Errorf("logged %v, %v; want the authorization with the answer", logged, err)
				}
			})
		})
	}
}

// calls makes a provider of a function.
type calls func(context.Context, []*paymentpb.ProviderCall) []*paymentpb.ProviderAnswer

func (f calls) Do(ctx context.Context, list []*paymentpb.ProviderCall) []*paymentpb.ProviderAnswer {
	return f(ctx, list)
}

func TestCourier_is_busy_when_the_provider_is(t *testing.T) {
	to := shard.NewID(shard.Payment, 0)
	d := &desk{}
	r := newRouter(1, d, nil, map[shard.ID][]transport.NodeID{to: {1}})
	r.observe(to, 1)
	c := newCourier(r, shard.DefaultLayout(), nil, clock.New(time.Now), slog.New(slog.DiscardHandler)) // it does not run
	for c.call(new(paymentpb.ProviderCall), nil) {
	}
	authorize := &paymentpb.Authorize{PaymentId: "pay_1", Amount: 3, Currency: "EUR", CallFirst: true}
	q := &request{op: opPropose, shard: to, command: shard.Command{
		Kind: shard.KindLogic, Payload: encode(&paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: authorize}}),
	}}
	var got error
	r.attempt(1, q, time.Now().Add(time.Second), func(_ shard.Result, err error) { got = err })
	if !errors.Is(got, replica.ErrBusy) || len(d.noted) != 0 {
		t.Errorf("err %v, %q; want it busy, and nothing logged", got, d.noted)
	}
}

// journal is a replica that notes what it logs.
type journal struct {
	outboxes
	noted []string
}

func (j *journal) Propose(to shard.ID, c shard.Command, _ replica.Manner, _ time.Time, done func(shard.Result, error)) {
	what := "an order's command"
	if r, err := decode[inventorypb.Command](c.Payload); err == nil && to.Service() == shard.Inventory {
		what = fmt.Sprintf("%d of %s for %d ms", r.GetReserve().GetDemands()[0].GetQuantity(), r.GetReserve().GetDemands()[0].GetSku(), r.GetReserve().GetTentative())
	}
	j.noted = append(j.noted, to.String()+" logs "+what)
	done(shard.Result{}, nil)
}

func TestCourier_reserves_while_the_leader_logs_an_order(t *testing.T) {
	to := shard.NewID(shard.Order, 0)
	order := func(currency string) []byte {
		return encode(&orderpb.Command{Body: &orderpb.Command_Place{Place: &orderpb.Place{
			Id: id.New(id.Order, 7, 0, 1), Currency: currency, Lines: []*orderpb.Line{{Sku: "a", Quantity: 3, UnitPrice: 100}},
		}}})
	}
	cancel := encode(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: id.New(id.Order, 7, 0, 1)}}})
	stock := shard.NewID(shard.Inventory, int(shard.DefaultLayout().InventoryOf("a")))
	logged, reserved := "order/0 logs an order's command", stock.String()+" logs 3 of a for 1000 ms"
	for _, test := range []struct {
		name   string
		level  uint32
		leader transport.NodeID
		busy   bool
		keys   []string
		place  []byte
		want   []string
	}{
		{"an order", cluster.ReserveEarly, 1, false, []string{"k"}, order("EUR"), []string{reserved, logged}},
		{"the same again", cluster.ReserveEarly, 1, false, []string{"k", "k"}, order("EUR"), []string{reserved, logged, logged}},
		{"two that have no key", cluster.ReserveEarly, 1, false, []string{"", ""}, order("EUR"), []string{reserved, logged, reserved, logged}},
		{"one that is going to be refused", cluster.ReserveEarly, 1, false, []string{"k"}, order("euros"), []string{logged}},
		{"something else", cluster.ReserveEarly, 1, false, []string{"k"}, cancel, []string{logged}},
		{"not led here", cluster.ReserveEarly, 2, false, []string{"k"}, order("EUR"), []string{logged}},
		{"while commands are refused here", cluster.ReserveEarly, 1, true, []string{"k"}, order("EUR"), []string{logged}},
		{"while a node does not know it", cluster.ReserveEarly - 1, 1, false, []string{"k"}, order("EUR"), []string{logged}},
	} {
		t.Run(test.name, func(t *testing.T) {
			j := &journal{}
			r := newRouter(1, j, nil, map[shard.ID][]transport.NodeID{to: {1}, stock: {1}})
			r.observe(to, test.leader)
			r.observe(stock, 1)
			c := newCourier(r, shard.DefaultLayout(), nil, clock.New(time.Now), slog.New(slog.DiscardHandler)) // it does not run
			c.features, c.busy = func() uint32 { return test.level }, func() bool { return test.busy }
			for _, key := range test.keys {
				cmd := shard.Command{Kind: shard.KindLogic, Key: key, Payload: test.place}
				r.attempt(1, &request{op: opPropose, shard: to, command: cmd}, time.Now().Add(time.Second), func(shard.Result, error) {})
			}
			if !slices.Equal(j.noted, test.want) {
				t.Errorf("%q, want %q", j.noted, test.want)
			}
		})
	}
}

func TestRecentKeys_are_bounded(t *testing.T) {
	var k recentKeys
	for i := range 3 * keptKeys {
		if !k.add(fmt.Sprint(i)) {
			t.Fatalf("key %d is not new", i)
		}
	}
	if n := len(k.now) + len(k.before); n != 2*keptKeys {
		t.Errorf("%d keys are kept, want %d", n, 2*keptKeys)
	}
	for _, i := range []int{keptKeys, 2*keptKeys - 1, 3*keptKeys - 1} {
		if k.add(fmt.Sprint(i)) {
			t.Errorf("key %d is new, and one of the last", i)
		}
	}
	if !k.add("0") {
		t.Error("the first key has not been forgotten")
	}
}
