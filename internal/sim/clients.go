package sim

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"

	"hanse/api/inventorypb"
	"hanse/api/keyspacepb"
	"hanse/api/orderpb"
	"hanse/internal/id"
	"hanse/internal/order"
	"hanse/internal/reject"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/shard/keyspaceshard"
	"hanse/internal/slot"
)

// client is a shop's program: it does one thing after the other, and does not give up before it has an answer.
type client struct {
	w   *World
	id  int
	rng *random
	// careless draws when a key is used for another request, so that the rest of a known seed's run stays what it was.
	careless *random
	ops      int
	busy     *op
	// beside has what it does beside that: second requests under the keys of others.
	beside map[*op]bool
}

// op is something that a client wants. With a key it is tried until there is an answer; without one, once.
type op struct {
	client *client
	what   string
	key    string
	shard  shard.ID
	wait   bool
	// places says that it places an order.
	places bool
	// claims says that the command claims the key itself.
	claims bool
	// second says that it has the key of another request.
	second bool
	// payload makes the command of an attempt: identifiers are drawn anew, as a node does for each request.
	payload func() []byte
	hash    uint64
	read    *request // instead of a command
	done    func(shard.Result)
	// gaveUp is called instead of done when an attempt without key has no certain answer.
	gaveUp   func()
	attempt  int
	started  int64
	finished bool
}

// secondMark tells the second request under a key from the first; it ends the reference of such an order.
const secondMark = "'"

// knownOrder is what clients know of an order.
type knownOrder struct {
	id, key  string
	customer string
	// revision is the newest that an answer has named, position the index at which.
	revision, position uint64
	total              int64
	// canceled says that a cancel was accepted: nothing may stay open.
	canceled bool
	// told is the state that the answer to its placing named, once it had an outcome.
	told order.State
}

type encoder interface{ MarshalVT() ([]byte, error) }

func encode(m encoder) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		panic(err)
	}
	return data
}

func (w *World) startClients() {
	for i := range w.plan.Clients {
		c := &client{
			w: w, id: i + 1, rng: newRandom(w.plan.Seed, fmt.Sprint("client ", i)), careless: newRandom(w.plan.Seed, fmt.Sprint("careless client ", i)),
			beside: make(map[*op]bool),
		}
		w.clients = append(w.clients, c)
		w.after(c.rng.exponential(w.plan.Think*millisecond), nil, "client", c.next)
	}
	// The shelves are filled first.
	c := w.clients[0]
	c.receive(c.newKey(), sku(0), c.rng.between(5, 200), false)
}

func sku(n int) string        { return fmt.Sprintf("sku-%d", n) }
func keyName(n int) string    { return fmt.Sprintf("key-%d", n) }
func (c *client) sku() string { return sku(c.rng.below(c.w.plan.SKUs)) }

// newKey makes an idempotency key, which also names the wish it stands for.
func (c *client) newKey() string {
	c.ops++
	return fmt.Sprintf("c%d-%d", c.id, c.ops)
}

func (c *client) newID(kind string, sl slot.Slot) string {
	return id.New(kind, sl, c.w.millis(), c.w.ids.next())
}

// next chooses what to do.
func (c *client) next() {
	if c.busy != nil || c.w.calm {
		return
	}
	switch r := c.rng.below(100); {
	case r < 34:
		c.place(c.newKey(), false)
	case r < 42:
		c.change("cancel", cancel)
	case r < 56:
		part := c.rng.chance(0.3)
		c.change("fulfill", func(o *knownOrder) encoder {
			f := &orderpb.Fulfill{Id: o.id, FulfillmentId: c.childID(id.Fulfillment, o.id)}
			if part {
				f.Items = []*orderpb.Item{{Line: 1, Quantity: 1}}
			}
			return &orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: f}}
		})
	case r < 62:
		disposition := orderpb.Disposition(c.rng.below(3))
		c.change("return", func(o *knownOrder) encoder {
			return &orderpb.Command{Body: &orderpb.Command_ReturnItems{ReturnItems: &orderpb.ReturnItems{
				Id: o.id, ReturnId: c.childID(id.Return, o.id), Items: []*orderpb.Item{{Line: 1, Quantity: 1}}, Disposition: disposition,
			}}}
		})
	case r < 66:
		c.change("refund", func(o *knownOrder) encoder {
			return &orderpb.Command{Body: &orderpb.Command_RefundAmount{RefundAmount: &orderpb.RefundAmount{
				Id: o.id, RefundId: c.childID(id.Refund, o.id), Amount: max(1, o.total/4), Reason: "late",
			}}}
		})
	case r < 70:
		c.receive(c.newKey(), c.sku(), c.rng.between(1, 90), false)
	case r < 73:
		c.adjust()
	case r < 77:
		c.reserve()
	case r < 80:
		c.look()
	default:
		c.keys()
	}
}

// submit begins an op.
func (c *client) submit(o *op) {
	o.client, o.started = c, c.w.now
	if c.busy == nil {
		c.busy = o
	} else {
		c.beside[o] = true
	}
	if o.payload != nil {
		o.hash = hashOf(o.what)
	}
	c.try(o)
	if o.key != "" && !o.second && c.careless.chance(c.w.plan.rate(ReusedKey)) {
		c.reuse(o.key)
	}
}

// hashOf is the hash of a request, by what it wants.
func hashOf(what string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(what))
	return h.Sum64() | 1
}

// reuse uses the key of a request for a second one, soon: one of the two is carried out at most.
func (c *client) reuse(key string) {
	c.w.after(c.careless.exponential(second), nil, "client is careless", func() {
		if c.w.calm {
			return
		}
		c.w.checks.reused[c.caller()+"/"+key] = true
		if c.careless.chance(0.7) {
			c.place(key, true)
		} else {
			c.receive(key, c.sku(), c.careless.between(1, 60), true)
		}
	})
}

// claim returns what a node claims for a request before it carries it out, nil for nothing.
func (o *op) claim() *orderpb.ClaimKey {
	if o.key == "" || o.claims || o.client.w.plan.Layout.KeyHome(o.key) == o.shard {
		return nil
	}
	return &orderpb.ClaimKey{Caller: o.client.caller(), Key: o.key, RequestHash: o.hash}
}

func (c *client) caller() string { return fmt.Sprint("client", c.id) }

// try makes an attempt at one of the nodes.
func (c *client) try(o *op) {
	w := c.w
	o.attempt++
	attempt := o.attempt
	n := w.nodes[c.rng.below(len(w.nodes))]
	patience := c.rng.between(1, 8) * second
	lost := !w.calm && c.rng.chance(w.plan.rate(ClientLoss))
	answerLost := !w.calm && c.rng.chance(w.plan.rate(ClientLoss))
	there, back := c.rng.between(200, 3000), c.rng.between(200, 3000)
	if !lost {
		w.after(there, nil, "client request", func() {
			if n.life == 0 {
				w.after(back, nil, "refused", func() { c.retry(o, attempt, errUnavailable) })
				return
			}
			done := func(r shard.Result, err error) {
				if answerLost {
					return
				}
				w.after(back, nil, "client answer", func() { c.answer(o, attempt, r, err) })
			}
			deadline := w.now + patience
			n.guard(func() {
				if n.pausedUntil > w.now {
					return // the request waits in a socket until its client has lost patience
				}
				if o.read != nil {
					n.router.read(o.shard, o.read.consistency, o.read.atLeast, o.read.payload, deadline, done)
				} else {
					cmd := shard.Command{Kind: shard.KindLogic, Caller: c.caller(), Key: o.key, RequestHash: o.hash, Payload: o.payload()}
					carryOut := func() { n.router.propose(o.shard, cmd, o.wait, o.key != "", deadline, done) }
					if claim := o.claim(); claim != nil {
						n.claim(claim, deadline, carryOut, done)
					} else {
						carryOut()
					}
				}
				n.wake()
			})
		})
	}
	w.after(patience+100*millisecond, nil, "client timeout", func() { c.retry(o, attempt, replica.ErrOutcomeUnknown) })
}

// answer takes what came back.
func (c *client) answer(o *op, attempt int, r shard.Result, err error) {
	if err != nil {
		c.retry(o, attempt, err)
		return
	}
	if o.finished {
		return
	}
	if r.Code == shard.CodeAgain {
		if o.places {
			c.w.hit(probeLapsed)
		} else {
			c.w.hit(probeAwaited)
		}
		c.retry(o, attempt, errUnavailable)
		return
	}
	o.finished = true
	c.w.mix(uint64(len(r.Code))<<32 | r.Position)
	if r.Replayed {
		c.w.hit(probeReplayed)
	}
	c.release(o)
	if o.key != "" && !canceled(o, r) {
		c.w.checks.underKey(c.caller()+"/"+o.key, o.what, r)
	}
	o.done(r)
	if o.key != "" && c.rng.chance(0.1) {
		c.again(o, r)
	}
}

// canceled reports whether an order that was placed has been canceled since, perhaps before it was known whether it had its key: the audit looks at what
// it had been charged.
func canceled(o *op, r shard.Result) bool {
	placed := new(orderpb.Order)
	return o.places && r.OK() && r.Pending == "" && placed.UnmarshalVT(r.Payload) == nil && placed.State == order.Canceled
}

// retry goes on after an attempt that had no answer.
func (c *client) retry(o *op, attempt int, err error) {
	if o.finished || o.attempt != attempt {
		return
	}
	if o.key == "" && o.read == nil {
		o.finished = true
		c.release(o)
		var notLeader *replica.NotLeaderError
		certain := errors.As(err, &notLeader) || errors.Is(err, replica.ErrBusy) || errors.Is(err, errUnavailable) || errors.Is(err, replica.ErrTimeout)
		if !certain && o.gaveUp != nil {
			o.gaveUp()
		}
		return
	}
	o.attempt++ // answers of the old attempt do not count as failures any more
	next := o.attempt
	c.w.after(c.rng.between(10, 500)*millisecond, nil, "client retry", func() {
		if !o.finished && o.attempt == next {
			c.try(o)
		}
	})
}

func (c *client) release(o *op) {
	delete(c.beside, o)
	if c.busy == o {
		c.busy = nil
		c.w.after(c.rng.exponential(c.w.plan.Think*millisecond), nil, "client", c.next)
	}
}

// again repeats a request that was answered, later, and compares the answers.
func (c *client) again(o *op, first shard.Result) {
	repeat := *o
	repeat.finished, repeat.attempt = false, 0
	repeat.done = func(r shard.Result) {
		if first.Pending != "" || r.Pending != "" {
			return // its outcome was not known
		}
		if r.Code != first.Code || !bytes.Equal(r.Payload, first.Payload) {
			c.w.fail("idempotency", "%s under key %s was answered %q %x, and when repeated %q %x", o.what, o.key, first.Code, first.Payload, r.Code, r.Payload)
		}
	}
	c.w.after(c.rng.exponential(5*second), nil, "client repeats", func() {
		if !c.w.calm && c.w.failure == nil {
			c.try(&repeat)
		}
	})
}

// place places an order under a key; second tells it from another one under the same.
func (c *client) place(key string, second bool) {
	w := c.w
	customer := fmt.Sprintf("cust-%d", c.rng.below(6))
	place := &orderpb.Place{CustomerId: customer, Currency: "EUR", PaymentMethod: "card", MerchantReference: c.caller() + "/" + key}
	if second {
		place.MerchantReference += secondMark
	}
	for range 1 + c.rng.below(3) {
		place.Lines = append(place.Lines, &orderpb.Line{Sku: c.sku(), Quantity: c.rng.between(1, 4), UnitPrice: c.rng.between(0, 50) * 100})
	}
	if c.rng.chance(0.05) {
		place.Lines[0].Sku = "sku-unknown"
	}
	if c.rng.chance(0.1) {
		place.Lines[0].Untracked = true
	}
	place.AuthorizeAhead, place.CallFirst = c.rng.chance(0.8), c.rng.chance(0.8) // as during an upgrade
	sl := slot.Of(customer)
	w.checks.placed[place.MerchantReference] = ""
	o := &op{
		what: "place " + place.MerchantReference, key: key, second: second, places: true, shard: w.plan.Layout.Shard(shard.Order, sl), wait: c.rng.chance(0.6),
		payload: func() []byte {
			place.Id = c.newID(id.Order, sl)
			return encode(&orderpb.Command{Body: &orderpb.Command_Place{Place: place}})
		},
		done: func(r shard.Result) {
			known := &knownOrder{id: r.Pending, key: place.MerchantReference, customer: customer, position: r.Position}
			if r.Pending == "" && len(r.Payload) > 0 {
				o := new(orderpb.Order)
				if err := o.UnmarshalVT(r.Payload); err != nil {
					w.fail("answer", "place %s: %v", key, err)
					return
				}
				known.id, known.revision, known.total, known.told = o.Id, o.Revision, o.Total, o.State
				if (r.Code != "") != (o.State == order.Rejected || o.State == order.Expired) {
					w.fail("answer", "place %s was answered %q with an order that is %s", key, r.Code, order.StateName(o.State))
				}
			}
			if known.id == "" {
				if r.Code == "" {
					w.fail("answer", "place %s was accepted without an order", key)
				}
				return
			}
			if before := w.checks.placed[known.key]; before != "" && before != known.id {
				w.fail("idempotency", "place %s made orders %s and %s", key, before, known.id)
			}
			w.checks.placed[known.key] = known.id
			w.orders = append(w.orders, known)
			if r.Pending != "" && c.busy == nil && c.careless.chance(0.15) { // while it is being placed and paid
				c.changeOrder(known, "cancel", cancel)
			}
		},
	}
	if !order.Free(place) && w.plan.Layout.KeyHome(key) != o.shard && c.careless.chance(0.8) {
		o.claims, place.Claim = true, &orderpb.ClaimKey{Caller: c.caller(), Key: key, RequestHash: hashOf(o.what)}
	}
	c.submit(o)
}

func (c *client) childID(kind, orderID string) string {
	sl, err := id.Parse(id.Order, orderID)
	if err != nil {
		panic(err)
	}
	return c.newID(kind, sl)
}

// recent returns an order that somebody has placed lately, nil when there is none.
func (c *client) recent() *knownOrder {
	orders := c.w.orders
	if len(orders) == 0 {
		return nil
	}
	return orders[len(orders)-1-c.rng.below(min(len(orders), 12))]
}

func cancel(o *knownOrder) encoder {
	return &orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: o.id, Reason: "changed my mind"}}}
}

// change sends a command on an existing order.
func (c *client) change(what string, command func(*knownOrder) encoder) {
	if o := c.recent(); o != nil {
		c.changeOrder(o, what, command)
	} else {
		c.place(c.newKey(), false)
	}
}

func (c *client) changeOrder(o *knownOrder, what string, command func(*knownOrder) encoder) {
	key := c.newKey()
	sl, err := id.Parse(id.Order, o.id)
	if err != nil {
		panic(err)
	}
	c.submit(&op{
		what: what + " " + key + " " + o.id, key: key, shard: c.w.plan.Layout.Shard(shard.Order, sl), wait: what == "cancel" && c.rng.chance(0.5),
		payload: func() []byte { return encode(command(o)) },
		done: func(r shard.Result) {
			switch r.Code {
			case "":
				c.w.checks.accepted(c.w, o, r)
				o.canceled = o.canceled || what == "cancel"
			case reject.OrderNotFound:
				c.w.fail("lost order", "%s of %s, which was acknowledged: %s", what, o.id, r.Detail)
			}
		},
	})
}

// look reads an order: it must be as new as the answers that named it.
func (c *client) look() {
	o := c.recent()
	if o == nil {
		c.place(c.newKey(), false)
		return
	}
	sl, err := id.Parse(id.Order, o.id)
	if err != nil {
		panic(err)
	}
	revision := o.revision
	read := &request{consistency: replica.Linearizable, payload: encode(&orderpb.Query{Body: &orderpb.Query_Find{Find: &orderpb.FindOrder{Id: o.id}}})}
	if c.rng.chance(0.6) {
		read.consistency, read.atLeast = replica.AtLeast, o.position
	}
	c.submit(&op{
		what: "look", shard: c.w.plan.Layout.Shard(shard.Order, sl), read: read,
		done: func(r shard.Result) {
			found := new(orderpb.Order)
			if r.Code != "" || found.UnmarshalVT(r.Payload) != nil {
				c.w.fail("session", "order %s, acknowledged at index %d, is answered %q at index %d", o.id, o.position, r.Code, r.Position)
				return
			}
			if found.Revision < revision {
				c.w.fail("session", "order %s is read at revision %d after an answer named %d (index %d)", o.id, found.Revision, revision, r.Position)
			}
		},
	})
}

func (c *client) receive(key, sku string, quantity int64, second bool) {
	what := fmt.Sprintf("receive %s %d %s", key, quantity, sku)
	if second {
		what += secondMark // as much of the same is another request all the same
	}
	c.submit(&op{
		what: what, key: key, second: second, shard: c.w.plan.Layout.Shard(shard.Inventory, slot.Of(sku)),
		payload: func() []byte {
			return encode(&inventorypb.Command{Body: &inventorypb.Command_Receive{Receive: &inventorypb.Receive{Sku: sku, Quantity: quantity, Reason: "delivery"}}})
		},
		done: func(r shard.Result) {
			if r.Code == reject.KeyReused {
				return
			}
			if r.Code != "" {
				c.w.fail("answer", "receive was refused: %s %s", r.Code, r.Detail)
				return
			}
			c.w.checks.moved[sku] += quantity
		},
	})
}

// adjust corrects what is on hand, mostly downwards.
func (c *client) adjust() {
	key, sku, quantity, await := c.newKey(), c.sku(), c.rng.between(-20, 5), c.rng.chance(0.8) // as during an upgrade
	if quantity == 0 {
		quantity = -1
	}
	c.submit(&op{
		what: fmt.Sprintf("adjust %s %d %s", key, quantity, sku), key: key, shard: c.w.plan.Layout.Shard(shard.Inventory, slot.Of(sku)),
		payload: func() []byte {
			return encode(&inventorypb.Command{Body: &inventorypb.Command_Adjust{Adjust: &inventorypb.Adjust{Sku: sku, Quantity: quantity, Reason: "count", AwaitTentative: await}}})
		},
		done: func(r shard.Result) {
			switch r.Code {
			case "":
				c.w.checks.moved[sku] += quantity
			case reject.StockNegative, reject.SKUNotFound, reject.KeyReused:
			default:
				c.w.fail("answer", "adjust was refused: %s %s", r.Code, r.Detail)
			}
		},
	})
}

// reserve makes a reservation without an order, which expires.
func (c *client) reserve() {
	key, sku, ttl, quantity, await := c.newKey(), c.sku(), c.rng.between(1, 20)*1000, c.rng.between(1, 3), c.rng.chance(0.8)
	sl := slot.Of(sku)
	c.submit(&op{
		what: "reserve " + key, key: key, shard: c.w.plan.Layout.Shard(shard.Inventory, sl),
		payload: func() []byte {
			return encode(&inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: &inventorypb.Reserve{
				HoldId: c.newID(id.Reservation, sl), FreeStanding: true, Due: c.w.millis() + ttl, AwaitTentative: await,
				Demands: []*inventorypb.Demand{{Sku: sku, Quantity: quantity}},
			}}})
		},
		done: func(shard.Result) {},
	})
}

// keys reads or writes a key; every answer goes into the history.
func (c *client) keys() {
	w := c.w
	name := keyName(c.rng.below(w.plan.Keys))
	to := w.plan.Layout.Shard(shard.Keyspace, slot.Of(name))
	kind, value := c.rng.below(10), fmt.Sprintf("%d.%d", c.id, c.ops)
	h := w.history.begin(name, c.id, w.now)
	o := &op{shard: to, gaveUp: func() { h.unknown = true }, done: func(r shard.Result) {
		if h.neverCalled = r.Code == reject.KeyReused; !h.neverCalled {
			w.history.end(w, h, r)
		}
	}}
	if kind < 4 {
		h.kind = keyGet
		o.what = "get " + name
		o.read = &request{consistency: replica.Linearizable, payload: encode(&keyspacepb.Query{Body: &keyspacepb.Query_Find{Find: &keyspacepb.FindKey{Keyspace: keyspaceshard.DefaultKeyspace, Key: name}}})}
		c.submit(o)
		return
	}
	if c.rng.chance(0.7) {
		o.key = c.newKey()
	}
	h.value = value
	var m *keyspacepb.Command
	switch {
	case kind < 7:
		h.kind = keyPut
		m = &keyspacepb.Command{Body: &keyspacepb.Command_Put{Put: &keyspacepb.Put{Keyspace: keyspaceshard.DefaultKeyspace, Key: name, Value: []byte(value)}}}
	case kind < 9:
		h.kind, h.expected = keyCAS, w.history.latest(name, c.rng)
		m = &keyspacepb.Command{Body: &keyspacepb.Command_Cas{Cas: &keyspacepb.CompareAndSet{Keyspace: keyspaceshard.DefaultKeyspace, Key: name, Value: []byte(value), ExpectedVersion: h.expected}}}
	default:
		h.kind = keyDelete
		m = &keyspacepb.Command{Body: &keyspacepb.Command_Delete{Delete: &keyspacepb.Delete{Keyspace: keyspaceshard.DefaultKeyspace, Key: name}}}
	}
	payload := encode(m)
	o.what, o.payload = "key "+value, func() []byte { return payload }
	c.submit(o)
}
