package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hanse/client"
	"hanse/internal/shard"
	"hanse/internal/slot"
)

// failover kills the leader of a shard of orders and measures how long nobody leads, and how long a customer waits.
func (l *lab) failover(ctx context.Context) error {
	var led, first, waited, slowest []time.Duration
	for i := range l.times {
		shards, err := l.well(ctx)
		if err != nil {
			return err
		}
		t, err := l.killLeader(ctx, shards, i)
		if err != nil {
			return err
		}
		led, first, waited, slowest = append(led, t.led), append(first, t.first), append(waited, t.waited), append(slowest, t.slowest)
		l.log("%6.1f s  %d of %d, %s: led again after %v, writes succeed after %v, the write sent at the kill after %v", l.now().Seconds(), i+1, l.times, t.shard,
			t.led.Round(time.Millisecond), t.first.Round(time.Millisecond), t.waited.Round(time.Millisecond))
	}
	if _, err := l.well(ctx); err != nil {
		return err
	}
	what := "kills of a shard's leader"
	if l.cut {
		what = "times that a shard's leader lost its network"
	}
	l.out.add(what, float64(l.times), "")
	for _, f := range []struct {
		what string
		took []time.Duration
	}{
		{"until a new leader is known", led},
		{"until a write to the shard succeeds", first},
		{"a write sent at the kill waits", waited},
	} {
		l.out.aim(f.what+", p50", quantile(f.took, 0.5), "ms", 800)
		l.out.aim(f.what+", max", quantile(f.took, 1), "ms", 2000)
	}
	l.out.add("the slowest of the writes sent after it, p50", quantile(slowest, 0.5), "ms")
	l.out.add("the slowest of the writes sent after it, max", quantile(slowest, 1), "ms")
	return nil
}

// failoverTimes are those of one kill, counted from the signal.
type failoverTimes struct {
	shard                       string
	led, first, waited, slowest time.Duration
}

const (
	// writeEvery is the time between two writes of a customer who counts how long the shard is away.
	writeEvery = 25 * time.Millisecond
	// leaderPoll is the time between two questions to a node who leads.
	leaderPoll = 10 * time.Millisecond
	// failoverPatience is how long a failover may take at all.
	failoverPatience = 30 * time.Second
)

// killLeader kills the leader of the i-th shard of orders in turn, and starts it again.
func (l *lab) killLeader(ctx context.Context, shards *client.Shards, i int) (t failoverTimes, err error) {
	ctx, cancel := context.WithTimeout(ctx, failoverPatience)
	defer cancel()
	id := shard.NewID(shard.Order, i%shards.Counts["order"])
	k := slices.IndexFunc(shards.Shards, func(s client.Shard) bool { return s.ID == id.String() })
	if k < 0 {
		return t, fmt.Errorf("no node knows %s", id)
	}
	s := shards.Shards[k]
	t.shard = s.ID
	w, err := l.newWriter(shards, id, i)
	if err != nil {
		return t, err
	}
	if err := w.warm(ctx); err != nil {
		return t, fmt.Errorf("write to %s before the kill: %w", id, err)
	}
	begin := time.Now()
	revive, err := l.kill(ctx, int(s.Leader))
	if err != nil {
		return t, err
	}
	led := make(chan time.Time, len(s.Replicas))
	var watchers sync.WaitGroup
	watching, stop := context.WithCancel(ctx)
	for _, r := range s.Replicas {
		if r.Node != s.Leader {
			watchers.Go(func() { l.awaitLeader(watching, int(r.Node), s.ID, led) })
		}
	}
	outcomes := w.write(ctx)
	select {
	case at := <-led:
		t.led = at.Sub(begin)
	case <-ctx.Done():
		err = fmt.Errorf("%s has no leader %v after its leader was killed", id, failoverPatience)
	}
	stop()
	watchers.Wait()
	if err := revive(); err != nil {
		return t, err
	}
	for n, o := range outcomes {
		if o.err != nil {
			return t, fmt.Errorf("write %d to %s after the kill: %w", n, id, o.err)
		}
		end := o.end.Sub(begin)
		if n == 0 {
			t.waited, t.first = end, end
		}
		t.first, t.slowest = min(t.first, end), max(t.slowest, o.end.Sub(o.begin))
	}
	return t, err
}

// kill ends a node's process, or with --cut its network, and returns what brings it back.
func (l *lab) kill(ctx context.Context, node int) (revive func() error, err error) {
	if !l.cut {
		p := l.cluster.nodes[node-1]
		return p.release, p.hold(ctx, syscall.SIGKILL)
	}
	// A machine without power says nothing more: no reset tells the others that their connections lead nowhere.
	links := make(map[link]trouble)
	for _, other := range hosts(l.cfg.nodes) {
		if other != host(node) {
			links[link{host(node), other}], links[link{other, host(node)}] = trouble{Cut: true}, trouble{Cut: true}
		}
	}
	return func() error { return l.network.shape(context.WithoutCancel(ctx), nil) }, l.network.shape(ctx, links)
}

// awaitLeader asks a node until it leads a shard.
func (l *lab) awaitLeader(ctx context.Context, node int, shard string, led chan<- time.Time) {
	sign := fmt.Appendf(nil, "hanse_replica_leading{shard=%q} 1\n", shard)
	for ctx.Err() == nil {
		if metrics, err := l.metrics(ctx, node); err == nil && bytes.Contains(metrics, sign) {
			led <- time.Now()
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(leaderPoll):
		}
	}
}

// metrics reads those of a node.
func (l *lab) metrics(ctx context.Context, node int) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.network.reach(clientsHost, host(node), restDoor)+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := l.provider.Do(req) // a plain HTTP client
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics of node %d: %s", node, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// writer writes to one shard of orders, as a customer with a client that retries: it places orders and does not wait for their outcome,
// so that no other shard has a part in it.
type writer struct {
	client   *client.Client
	shop     *shop
	rng      *rand.Rand
	customer string
	made     int
	name     string
}

func (l *lab) newWriter(shards *client.Shards, id shard.ID, turn int) (*writer, error) {
	c, err := l.newClient(client.Config{RetryFor: failoverPatience, Wait: -1}, false, l.numbers()...)
	if err != nil {
		return nil, err
	}
	layout := shard.Layout{shard.Order: shards.Counts["order"]}
	for n := 0; ; n++ {
		customer := "customer-" + strconv.Itoa(n)
		if layout.Shard(shard.Order, slot.Of(customer)) == id {
			return &writer{client: c, shop: l.shop, rng: rand.New(rand.NewPCG(l.cfg.seed, uint64(turn))), customer: customer, name: strconv.Itoa(turn)}, nil
		}
	}
}

// draw makes an order of the customer up.
func (w *writer) draw() *sale {
	o := w.shop.draw(w.rng, w.made)
	o.Reference = fmt.Sprintf("%sw%s-%d", w.shop.prefix(), w.name, w.made)
	o.Customer, o.Order.CustomerID, o.Order.MerchantReference = w.customer, w.customer, o.Reference
	w.made++
	return o
}

// warm writes once to every node, so that the client has its connections and the nodes know who leads.
func (w *writer) warm(ctx context.Context) error {
	for range w.client.Addrs() {
		if o := w.place(ctx, w.draw()); o.err != nil {
			return o.err
		}
	}
	return nil
}

// written is a write and its fate.
type written struct {
	begin, end time.Time
	err        error
}

func (w *writer) place(ctx context.Context, o *sale) written {
	begin := time.Now()
	order, err := w.client.PlaceOrder(ctx, o.Reference, &o.Order)
	o.Placed.heard(err)
	if err == nil {
		o.ID, o.Told = order.ID, order.State
	}
	w.shop.book(o, sample{Begin: w.shop.now() - time.Since(begin), Took: time.Since(begin), Answered: o.Placed.Outcome != open})
	return written{begin, time.Now(), err}
}

// write writes now, and again and again until something succeeds, and returns when all writes have their answer. The first is the oldest.
func (w *writer) write(ctx context.Context) []written {
	var wg sync.WaitGroup
	var all []*written
	done := make(chan struct{})
	var once sync.Once
	t := time.NewTicker(writeEvery)
	defer t.Stop()
	for {
		o, out := w.draw(), new(written)
		all = append(all, out)
		wg.Go(func() {
			if *out = w.place(ctx, o); out.err == nil {
				once.Do(func() { close(done) })
			}
		})
		select {
		case <-t.C:
			continue
		case <-done:
		case <-ctx.Done():
		}
		break
	}
	wg.Wait()
	results := make([]written, len(all))
	for i, o := range all {
		results[i] = *o
	}
	return results
}
