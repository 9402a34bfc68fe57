package node

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"hanse/internal/clock"
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
		c := newCourier(r, nil, clock.New(time.Now), slog.New(slog.DiscardHandler))
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
