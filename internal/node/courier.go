package node

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"hanse/api/paymentpb"
	"hanse/internal/clock"
	"hanse/internal/cluster"
	"hanse/internal/id"
	"hanse/internal/payment"
	"hanse/internal/reactor"
	"hanse/internal/reject"
	"hanse/internal/replica"
	"hanse/internal/saga"
	"hanse/internal/shard"
)

const (
	// deliveryTimeout bounds one delivery to another shard; the receiver may hold its answer that long.
	deliveryTimeout = 10 * time.Second
	// providerCalls is how many calls to the provider are under way at once, providerBatch how many of them
	// may travel together.
	providerCalls = 16
	providerBatch = 32
	// providerTimeout bounds one round of calls to the provider.
	providerTimeout = 10 * time.Second
	// keptKeys is how many keys of orders fill a generation.
	keptKeys = 1 << 15
	// courierTick is the finest grain of retries.
	courierTick = 20 * time.Millisecond
)

// courier runs the reactor: it passes on what happens in the replicas and carries out the actions.
type courier struct {
	reactor  *reactor.Reactor
	router   *router
	layout   shard.Layout
	replicas interface {
		Do(ctx context.Context, id shard.ID, fn func(shard.Machine)) error
	}
	provider  payment.Provider
	published func()
	leads     func(id shard.ID, term uint64, leader bool)
	clock     *clock.Clock
	log       *slog.Logger

	mu     sync.Mutex
	inbox  []func(now clock.Reading) // what the reactor is to be told, in order
	signal chan struct{}
	calls  chan providerCall
	// features is the feature level in force, busy says that commands are refused here; placed remembers keys of orders.
	features func() uint32
	busy     func() bool
	placed   recentKeys
	waiting  map[shard.ID]int // messages in the outboxes of led shards
	// leading has the term in which each shard is led here, as far as the reactor's steps have come.
	leading map[shard.ID]uint64
	// unconfirmed has those of leading that this node may not serve yet: a group that the cluster has gone on without can still elect,
	// and must not tell other shards or the provider what is not so any more.
	unconfirmed map[shard.ID]uint64
}

// providerCall is a call that waits for its turn. Done is called with the answer, unless the node stops.
type providerCall struct {
	call *paymentpb.ProviderCall
	done func(*paymentpb.ProviderAnswer)
}

func newCourier(r *router, layout shard.Layout, provider payment.Provider, c *clock.Clock, log *slog.Logger) *courier {
	co := &courier{
		reactor: reactor.New(reactor.DefaultConfig(), rand.Uint64), router: r, layout: layout, provider: provider, clock: c, log: log,
		signal: make(chan struct{}, 1), calls: make(chan providerCall, 1<<14),
		waiting: make(map[shard.ID]int), leading: make(map[shard.ID]uint64), unconfirmed: make(map[shard.ID]uint64),
		features: func() uint32 { return 0 }, busy: func() bool { return false },
	}
	r.callFirst, r.reserveEarly = co.callFirst, co.reserveEarly
	return co
}

// tell queues a step of the reactor. The queue is bounded by what the replicas apply and what is in flight.
func (c *courier) tell(step func(now clock.Reading)) {
	c.mu.Lock()
	c.inbox = append(c.inbox, step)
	first := len(c.inbox) == 1
	c.mu.Unlock()
	if first {
		select {
		case c.signal <- struct{}{}:
		default:
		}
	}
}

// Leader implements replica.Observer.
func (c *courier) Leader(id shard.ID, term uint64, leader bool) {
	c.leads(id, term, leader)
	if !leader {
		c.tell(func(clock.Reading) {
			delete(c.leading, id)
			delete(c.unconfirmed, id)
			c.reactor.Resign(id)
		})
		return
	}
	c.tell(func(clock.Reading) {
		c.leading[id], c.unconfirmed[id] = term, term
		c.takeOver()
	})
	c.log.Info("leading", "shard", id.String(), "term", term)
}

// takeOver has the reactor begin with the outboxes of shards that are led here, as soon as this node may serve them.
func (c *courier) takeOver() {
	for id, term := range c.unconfirmed {
		if c.router.serves(id) {
			delete(c.unconfirmed, id)
			c.lead(id, term)
		}
	}
}

// lead reads an outbox. Do runs between two entries, so the list it sees and the entries applied after it together hold every message.
func (c *courier) lead(id shard.ID, term uint64) {
	go func() { // the worker that does it may be busy, and it may have an entry to report here first
		err := c.replicas.Do(context.Background(), id, func(m shard.Machine) {
			messages := m.Outbox()
			c.tell(func(now clock.Reading) {
				if c.leading[id] == term { // else it was over before the list was made
					c.reactor.Lead(id, term, messages, now)
				}
			})
		})
		if err != nil {
			c.log.Warn("outbox not read", "shard", id.String(), "err", err)
		}
	}()
}

// Applied implements replica.Observer.
func (c *courier) Applied(id shard.ID, leader bool, a shard.Applied) {
	if a.Published {
		c.published()
	}
	if leader {
		c.logStuck(id, a.Stuck)
	}
	if leader && len(a.Emitted)+len(a.Finished) > 0 {
		c.tell(func(now clock.Reading) { c.reactor.Applied(id, a.Emitted, a.Finished, now) })
	}
}

// logStuck tells the operator of orders that begin to wait for a person, and of those that go on. It is on the leader alone, so that each is told once.
func (c *courier) logStuck(id shard.ID, notes []shard.StuckNote) {
	for _, n := range notes {
		if n.Over {
			c.log.Info("stuck step goes on", "shard", id.String(), "order_id", n.Key)
		} else {
			c.log.Warn("step is stuck", "shard", id.String(), "order_id", n.Key, "step", n.Step, "err", n.Cause)
		}
	}
}

// outboxes returns how many messages wait in the outbox of each shard that this node leads, at the last tick.
func (c *courier) outboxes() map[shard.ID]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.waiting)
}

// count takes note of the outboxes, for the reactor belongs to the goroutine of run.
func (c *courier) count() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.waiting)
	for id := range c.leading {
		if c.reactor.Leads(id) {
			c.waiting[id] = c.reactor.Pending(id)
		}
	}
}

// run drives the reactor and the calls to the provider until ctx ends.
func (c *courier) run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range providerCalls {
		workers.Go(func() { c.callProvider(ctx) })
	}
	defer workers.Wait()
	tick := time.NewTicker(courierTick)
	defer tick.Stop()
	var steps []func(clock.Reading)
	for {
		ticked := false
		select {
		case <-ctx.Done():
			return nil
		case <-c.signal:
		case <-tick.C:
			ticked = true
		}
		c.mu.Lock()
		steps, c.inbox = c.inbox, steps[:0]
		c.mu.Unlock()
		now := c.clock.Read()
		for _, step := range steps {
			step(now)
		}
		clear(steps)
		c.takeOver()
		c.reactor.Tick(now)
		c.act(c.reactor.Take())
		if ticked { // turns are many, and whoever asks comes every few seconds
			c.count()
		}
	}
}

func (c *courier) act(actions reactor.Actions) {
	deadline := time.Now().Add(deliveryTimeout)
	for _, d := range actions.Deliveries {
		if d.Message.To == shard.PSP {
			c.deliverCall(d)
			continue
		}
		// A payment answers when the provider has; the others at once.
		wait := d.Message.To.Service() == shard.Payment
		cmd := shard.Command{Kind: shard.KindLogic, Payload: d.Payload()}
		c.router.deliver(d.Message.To, cmd, wait, deadline, func(r shard.Result, err error) {
			c.answered(d, r, err)
		})
	}
	for _, p := range actions.Proposals {
		c.router.replicas.Propose(p.To, p.Command, replica.Manner{Lazy: p.Lazy}, deadline, func(_ shard.Result, err error) {
			if err != nil && p.Seq != 0 {
				c.tell(func(now clock.Reading) { c.reactor.ProposalFailed(p.To, p.Term, p.Seq, now) })
			}
		})
	}
}

func (c *courier) answered(d reactor.Delivery, r shard.Result, err error) {
	c.tell(func(now clock.Reading) { c.reactor.Answered(d.From, d.Term, d.Message.Seq, r, err, now) })
}

// deliverCall brings a message of a payment's outbox to the provider.
func (c *courier) deliverCall(d reactor.Delivery) {
	call, err := decode[paymentpb.ProviderCall](d.Message.Payload)
	if err != nil {
		c.answered(d, shard.Result{Code: reject.MalformedCommand, Detail: err.Error()}, nil)
		return
	}
	if !c.call(call, func(a *paymentpb.ProviderAnswer) { c.answered(d, shard.Result{Payload: encode(a)}, nil) }) {
		c.answered(d, shard.Result{}, replica.ErrBusy)
	}
}

// callFirst calls the provider for an authorization that came to this node as the payment's leader, and has both logged. When that fails the
// sender tries again, and the provider gives the same answer under the same key.
func (c *courier) callFirst(q *request, deadline time.Time, done func(shard.Result, error)) bool {
	if q.shard.Service() != shard.Payment || q.command.Kind != shard.KindLogic || c.router.leader(q.shard) != c.router.self {
		return false
	}
	call, command := payment.First(q.command.Payload, c.clock.Read().Wall)
	if call == nil {
		return false
	}
	to, cmd, wait := q.shard, q.command, q.wait
	queued := c.call(call, func(a *paymentpb.ProviderAnswer) {
		authorize := command.GetAuthorize()
		authorize.Answer = a
		cmd.Payload = encode(command)
		c.router.replicas.Propose(to, cmd, replica.Manner{Wait: wait}, deadline, done)
		c.tellOrder(authorize, deadline)
	})
	if !queued {
		done(shard.Result{}, replica.ErrBusy)
	}
	return true
}

// tellOrder tells an order what the provider has said, without waiting for the payment to be logged. When that does not arrive, the payment's own answer does.
func (c *courier) tellOrder(authorize *paymentpb.Authorize, deadline time.Time) {
	heard := saga.Heard(authorize)
	sl, err := id.Parse(id.Order, authorize.OrderId)
	if heard == nil || err != nil {
		return
	}
	cmd := shard.Command{Kind: shard.KindLogic, Payload: encode(heard)}
	c.router.deliver(c.layout.Shard(shard.Order, sl), cmd, false, deadline, func(shard.Result, error) {})
}

// reserveEarly reserves tentatively for an order that is about to be logged here, so that both are under way at once. A busy node has no time for that, and
// the order is refused perhaps.
func (c *courier) reserveEarly(q *request, deadline time.Time) {
	if q.shard.Service() != shard.Order || q.command.Kind != shard.KindLogic || c.features() < cluster.ReserveEarly || c.router.leader(q.shard) != c.router.self || c.busy() {
		return
	}
	orderID, ahead := reactor.Tentative(q.command.Payload, c.layout, c.clock.Read().Wall, saga.TentativeTime)
	if len(ahead) == 0 || q.command.Key != "" && !c.placed.add(q.command.Scope()) {
		return
	}
	from := q.shard
	c.tell(func(now clock.Reading) {
		for _, a := range ahead {
			c.reactor.Early(from, a.To, orderID, now)
		}
	})
	for _, a := range ahead {
		c.router.deliver(a.To, shard.Command{Kind: shard.KindLogic, Payload: a.Payload}, false, deadline, func(r shard.Result, err error) {
			c.tell(func(now clock.Reading) { c.reactor.EarlyAnswered(from, a.To, orderID, err == nil && r.OK(), now) })
		})
	}
}

// recentKeys remembers the last keys, some 32,000 to 64,000: who places an order again under its key must not take its stock again. One that is not
// remembered does, for as long as [saga.TentativeTime].
type recentKeys struct {
	mu          sync.Mutex
	now, before map[string]struct{}
}

// add reports whether a key is new.
func (k *recentKeys) add(key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, recent := k.now[key]
	_, older := k.before[key]
	if recent || older {
		return false
	}
	if k.now == nil || len(k.now) >= keptKeys {
		k.now, k.before = make(map[string]struct{}), k.now
	}
	k.now[key] = struct{}{}
	return true
}

// call queues a call to the provider; false when more are waiting than it can be asked at once.
func (c *courier) call(call *paymentpb.ProviderCall, done func(*paymentpb.ProviderAnswer)) bool {
	select {
	case c.calls <- providerCall{call, done}:
		return true
	default:
		return false
	}
}

// callProvider takes calls from the queue, as many as are waiting, and asks the provider.
func (c *courier) callProvider(ctx context.Context) {
	for {
		var batch []providerCall
		select {
		case <-ctx.Done():
			return
		case p := <-c.calls:
			batch = append(batch, p)
		}
	more:
		for len(batch) < providerBatch {
			select {
			case p := <-c.calls:
				batch = append(batch, p)
			default:
				break more
			}
		}
		calls := make([]*paymentpb.ProviderCall, len(batch))
		for i, p := range batch {
			calls[i] = p.call
		}
		callCtx, cancel := context.WithTimeout(ctx, providerTimeout)
		answers := c.provider.Do(callCtx, calls)
		cancel()
		if ctx.Err() != nil {
			return // the answers may be our own shutdown: the next leader asks again by the same keys
		}
		for i, p := range batch {
			p.done(answers[i])
		}
	}
}
