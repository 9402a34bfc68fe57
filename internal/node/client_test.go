package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hanse/api/inventorypb"
	"hanse/api/metapb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/clock"
	"hanse/internal/cluster"
	"hanse/internal/id"
	"hanse/internal/order"
	"hanse/internal/reject"
	"hanse/internal/replica"
	"hanse/internal/rest"
	"hanse/internal/shard"
	"hanse/internal/slot"
	"hanse/internal/transport"
)

// register holds an order, if any, and its payment from a certain time on.
type register struct {
	order *orderpb.Order
	from  time.Time
}

func (r *register) Propose(shard.ID, shard.Command, replica.Manner, time.Time, func(shard.Result, error)) {
}

func (r *register) Read(to shard.ID, _ replica.Consistency, _ uint64, payload []byte, _ time.Time, done func(shard.Result, error)) {
	var q orderpb.Query
	switch {
	case to.Service() == shard.Order && q.UnmarshalVT(payload) == nil && q.GetEvents() != nil: // its end was its third event
		done(shard.Result{Payload: encode(&orderpb.EventList{Events: []*orderpb.Event{
			{Version: 2}, {Version: 3, Detail: &orderpb.Event_Ended{Ended: &orderpb.Ended{State: order.Canceled}}}, {Version: 4},
		}})}, nil)
	case to.Service() == shard.Order && r.order != nil:
		done(shard.Result{Payload: encode(r.order)}, nil)
	case to.Service() == shard.Order:
		done(shard.Result{Code: reject.OrderNotFound}, nil)
	case time.Now().Before(r.from):
		done(shard.Result{Code: reject.PaymentNotFound}, nil)
	default:
		done(shard.Result{Payload: encode(&paymentpb.Payment{Authorized: 5})}, nil)
	}
}

// An order may hear that it is paid before its payment is on record. Who asks for the payment then waits for it; for any other nobody waits.
func TestClient_waits_for_the_payment_of_an_order_that_knows_of_it(t *testing.T) {
	orderID := id.New(id.Order, 7, 0, 1)
	paymentID := id.Sibling(id.Payment, orderID)
	order := func(authorized int64) *orderpb.Order {
		return &orderpb.Order{Id: orderID, PaymentId: paymentID, Authorized: authorized}
	}
	for _, test := range []struct {
		name   string
		order  *orderpb.Order
		after  time.Duration
		stale  bool
		code   string
		waited time.Duration // at most
	}{
		{"it is there", order(5), 0, false, "", 0},
		{"it comes", order(5), 50 * time.Millisecond, false, "", 50*time.Millisecond + untilRecorded.pause},
		{"it does not come", order(5), time.Minute, false, reject.Unavailable, untilRecorded.time + untilRecorded.pause},
		{"the order does not know of it", order(0), time.Minute, false, reject.PaymentNotFound, 0},
		{"there is no order", nil, time.Minute, false, reject.PaymentNotFound, 0},
		{"a look at what is here", order(5), time.Minute, true, reject.PaymentNotFound, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin, layout, hosts := time.Now(), shard.DefaultLayout(), map[shard.ID][]transport.NodeID{}
				for _, s := range layout.All() {
					hosts[s] = []transport.NodeID{1}
				}
				c := &Client{router: newRouter(1, &register{test.order, begin.Add(test.after)}, nil, hosts), layout: layout}
				a, err := c.Payment(t.Context(), paymentID, rest.Consistency{Stale: test.stale})
				code := ""
				var rejected *reject.Rejection
				var failed *reject.Failure
				if errors.As(err, &rejected) {
					code = rejected.Code
				} else if errors.As(err, &failed) {
					code = failed.Code
				}
				if code != test.code || (err == nil) != (a.Value.GetAuthorized() == 5) {
					t.Errorf("%v, %v; want code %q", a.Value, err, test.code)
				}
				if waited := time.Since(begin); waited > test.waited {
					t.Errorf("waited %v, want %v at most", waited, test.waited)
				}
			})
		})
	}
}

// late is a replica that says of the first orders that they come too late.
type late struct {
	register
	times int
	ids   []string
}

func (l *late) Propose(_ shard.ID, c shard.Command, _ replica.Manner, _ time.Time, done func(shard.Result, error)) {
	placed, err := decode[orderpb.Command](c.Payload)
	if l.ids = append(l.ids, placed.GetPlace().GetId()); err == nil && len(l.ids) <= l.times {
		done(shard.Result{Code: shard.CodeAgain}, nil)
		return
	}
	done(shard.Result{Payload: encode(&orderpb.Order{Id: placed.GetPlace().GetId()})}, err)
}

// clientOf returns a client of one node that has all shards.
func clientOf(r hosted) *Client {
	layout, hosts := shard.DefaultLayout(), map[shard.ID][]transport.NodeID{}
	for _, s := range layout.All() {
		hosts[s] = []transport.NodeID{1}
	}
	d := new(directory)
	d.current.Store(new(known))
	return &Client{router: newRouter(1, r, nil, hosts), layout: layout, operator: &operator{directory: d}, clock: clock.New(time.Now)}
}

// An order whose stock was asked about before it was there is placed under another ID, and nobody sees it.
func TestClient_places_anew_what_came_too_late(t *testing.T) {
	l := &late{times: 2}
	c := clientOf(l)
	a, err := c.Place(t.Context(), rest.Request{Key: "k"}, &orderpb.Place{}, 0)
	if err != nil || len(l.ids) != 3 || a.Value.GetId() != l.ids[2] {
		t.Fatalf("%v, %v after %q; want the third", a.Value, err, l.ids)
	}
	slices.Sort(l.ids)
	if len(slices.Compact(l.ids)) != 3 {
		t.Errorf("the orders have the IDs %q, want three", l.ids)
	}
}

// shelf is a replica that cannot say until some time whether its stock is enough, and refuses who does not wait for that.
type shelf struct {
	register
	until time.Time
}

func (s *shelf) Propose(to shard.ID, c shard.Command, _ replica.Manner, _ time.Time, done func(shard.Result, error)) {
	m, err := decode[inventorypb.Command](c.Payload)
	switch {
	case to.Service() != shard.Inventory: // claims the key
		done(shard.Result{}, nil)
	case err != nil:
		done(shard.Result{}, err)
	case !m.GetAdjust().GetAwaitTentative() && !m.GetReserve().GetAwaitTentative():
		done(shard.Result{Code: reject.OutOfStock}, nil)
	case time.Now().Before(s.until):
		done(shard.Result{Code: shard.CodeAgain}, nil)
	default:
		done(shard.Result{}, nil)
	}
}

// What is held for orders that are just being placed may come back: adjustments and reservations wait until that is known.
func TestClient_waits_for_what_is_held_tentatively(t *testing.T) {
	const level = cluster.AwaitTentative
	for name, request := range map[string]func(context.Context, *Client) error{
		"adjustment": func(ctx context.Context, c *Client) error {
			_, err := c.Adjust(ctx, rest.Request{Key: "k"}, &inventorypb.Adjust{Sku: "A", Quantity: -1})
			return err
		},
		"reservation": func(ctx context.Context, c *Client) error {
			_, err := c.Reserve(ctx, rest.Request{Key: "k"}, "A", "", 1, time.Minute)
			return err
		},
	} {
		for _, test := range []struct {
			name    string
			known   time.Duration // when it is known
			timeout time.Duration
			level   uint32
			code    string
			waited  time.Duration // at least; and one pause more at most
		}{
			{"it is known", 0, time.Minute, level, "", 0},
			{"it becomes known", time.Second, time.Minute, level, "", time.Second},
			{"it does not", time.Minute, time.Minute, level, reject.Unavailable, untilPlaced.time},
			{"its caller does not wait for it", time.Minute, time.Second + untilPlaced.pause/2, level, reject.Unavailable, time.Second},
			{"before all nodes can wait", time.Second, time.Minute, level - 1, reject.OutOfStock, 0},
		} {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), test.timeout)
				defer cancel()
				begin := time.Now()
				c := clientOf(&shelf{until: begin.Add(test.known)})
				c.directory.current.Store(&known{view: &metapb.View{Cluster: &metapb.Cluster{Features: test.level}}})
				err := request(ctx, c)
				var failed *reject.Failure
				if is := isRejected(err, test.code) || errors.As(err, &failed) && failed.Code == test.code && failed.RetryAfter > 0; is != (test.code != "") || (err == nil) != (test.code == "") {
					t.Errorf("%s, %s: %v, want code %q", name, test.name, err, test.code)
				}
				if waited := time.Since(begin); waited < test.waited || waited > test.waited+untilPlaced.pause {
					t.Errorf("%s, %s: waited %v, want %v", name, test.name, waited, test.waited)
				}
			})
		}
	}
}

// ledger is a replica that notes the commands it gets, and refuses to have keys claimed when it is told to.
type ledger struct {
	register
	refuses  bool
	commands []string
}

func (l *ledger) Propose(to shard.ID, c shard.Command, _ replica.Manner, _ time.Time, done func(shard.Result, error)) {
	what := to.String()
	var m orderpb.Command
	if to.Service() == shard.Order && m.UnmarshalVT(c.Payload) == nil {
		switch m.Body.(type) {
		case *orderpb.Command_ClaimKey:
			l.commands = append(l.commands, what+fmt.Sprintf(" claim %s of %s for %d", m.GetClaimKey().Key, m.GetClaimKey().Caller, m.GetClaimKey().RequestHash))
			if l.refuses {
				done(shard.Result{Code: shard.CodeKeyReused}, nil)
				return
			}
			done(shard.Result{}, nil)
			return
		case *orderpb.Command_Place:
			if what += " place"; m.GetPlace().Claim != nil {
				what += " and claim " + m.GetPlace().Claim.Key
			}
		}
	}
	l.commands = append(l.commands, what)
	done(shard.Result{}, nil)
}

// A key is claimed where it is kept before the request is carried out elsewhere; an order that costs something does that itself.
func TestClient_claims_keys(t *testing.T) {
	// In the default layout the keys a and b, and the customers of these names, are of different shards.
	const caller, level = "shop", cluster.ClaimKeys
	layout := shard.DefaultLayout()
	a, b := layout.KeyHome("a"), layout.KeyHome("b")
	if a == b {
		t.Fatalf("both keys are of %s", a)
	}
	ofB := layout.Shard(shard.Inventory, slot.Of("b"))
	place := func(customer string, price int64) func(*Client, rest.Request) error {
		return func(c *Client, r rest.Request) error {
			_, err := c.Place(t.Context(), r, &orderpb.Place{CustomerId: customer, Lines: []*orderpb.Line{{Sku: "x", Quantity: 1, UnitPrice: price}}}, 0)
			return err
		}
	}
	receive := func(c *Client, r rest.Request) error {
		_, err := c.Receive(t.Context(), r, &inventorypb.Receive{Sku: "b", Quantity: 1})
		return err
	}
	claim := a.String() + " claim a of shop for 7"
	for _, test := range []struct {
		name    string
		key     string
		level   uint32
		refuses bool
		do      func(*Client, rest.Request) error
		want    []string
	}{
		{"no key", "", level, false, receive, []string{ofB.String()}},
		{"a receipt", "a", level, false, receive, []string{claim, ofB.String()}},
		{"a receipt with a key of another request", "a", level, true, receive, []string{claim}},
		{"before all nodes know claims", "a", level - 1, false, receive, []string{ofB.String()}},
		{"an order where its key is kept", "a", level, false, place("a", 5), []string{a.String() + " place"}},
		{"a key with the customer as its tag", "{b}a", level, false, place("b", 5), []string{b.String() + " place"}},
		{"an order elsewhere", "a", level, false, place("b", 5), []string{b.String() + " place and claim a"}},
		{"an order elsewhere before all nodes know claims", "a", level - 1, false, place("b", 5), []string{b.String() + " place"}},
		{"a free order elsewhere", "a", level, false, place("b", 0), []string{claim, b.String() + " place"}},
		{"a free order with a key of another request", "a", level, true, place("b", 0), []string{claim}},
		{"a guest's order", "a", level, false, place("", 5), []string{a.String() + " place"}},
	} {
		l := &ledger{refuses: test.refuses}
		c := clientOf(l)
		c.directory.current.Store(&known{view: &metapb.View{Cluster: &metapb.Cluster{Features: test.level}}})
		err := test.do(c, rest.Request{Caller: caller, Key: test.key, Hash: 7})
		if !slices.Equal(l.commands, test.want) || test.refuses != isRejected(err, reject.KeyReused) {
			t.Errorf("%s: commands %q, %v; want %q", test.name, l.commands, err, test.want)
		}
	}
}

// unheard is a replica whose answers about claims are lost.
type unheard struct{ ledger }

func (u *unheard) Propose(to shard.ID, c shard.Command, m replica.Manner, deadline time.Time, done func(shard.Result, error)) {
	u.ledger.Propose(to, c, m, deadline, func(r shard.Result, err error) {
		if c.Key == "" {
			err = replica.ErrOutcomeUnknown
		}
		done(r, err)
	})
}

// A request whose claim has no answer is not carried out, whether the claim was or not: that is certain, and says so.
func TestClient_does_not_carry_out_what_it_could_not_claim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := &unheard{}
		c := clientOf(u)
		c.directory.current.Store(&known{view: &metapb.View{Cluster: &metapb.Cluster{Features: cluster.ClaimKeys}}})
		_, err := c.Receive(t.Context(), rest.Request{Caller: "shop", Key: "a", Hash: 7}, &inventorypb.Receive{Sku: "b", Quantity: 1})
		var f *reject.Failure
		if home := c.layout.KeyHome("a").String(); !errors.As(err, &f) || f.Code != reject.Unavailable || f.Shard != home || !strings.HasSuffix(f.Detail, "it keeps the request's idempotency key") {
			t.Errorf("receive: %v, want that %s is unavailable", err, home)
		}
		if i := slices.IndexFunc(u.commands, func(c string) bool { return !strings.Contains(c, "claim") }); i >= 0 {
			t.Errorf("carried out: %s", u.commands[i])
		}
	})
}

// versions is a replica that has an order in several versions.
type versions struct {
	repeated
	asked []uint64
}

func (v *versions) Read(to shard.ID, c replica.Consistency, index uint64, payload []byte, deadline time.Time, done func(shard.Result, error)) {
	q, err := decode[orderpb.Query](payload)
	if err != nil {
		done(shard.Result{}, err)
		return
	}
	v.asked = append(v.asked, q.GetFind().GetVersion())
	v.repeated.Read(to, c, index, payload, deadline, done)
}

// Who repeats a request gets the answer of then: a placed order as it was when it was decided.
func TestClient_repeats_its_answer(t *testing.T) {
	for _, test := range []struct {
		revision uint64
		want     []uint64
	}{{4, []uint64{0}}, {9, []uint64{0, 4}}} {
		o := &orderpb.Order{Id: id.New(id.Order, 7, 0, 1), State: order.Confirmed, SettledRevision: 4, Revision: test.revision}
		v := &versions{repeated: repeated{register: register{order: o}}}
		a, err := clientOf(v).Place(t.Context(), rest.Request{Key: "k"}, &orderpb.Place{}, 0)
		if err != nil || a.Pending || !a.Replayed || !slices.Equal(v.asked, test.want) {
			t.Errorf("at revision %d: %+v, %v, versions %v were asked for; want %v", test.revision, a, err, v.asked, test.want)
		}
	}
	// Of a cancel it is the order at its end.
	for revision, want := range map[uint64][]uint64{3: {0, 0}, 4: {0, 0, 3}} { // the second asks for its events
		o := &orderpb.Order{Id: id.New(id.Order, 7, 0, 1), State: order.Canceled, Revision: revision}
		v := &versions{repeated: repeated{register: register{order: o}}}
		a, err := clientOf(v).Cancel(t.Context(), rest.Request{Key: "k"}, &orderpb.Cancel{Id: o.Id}, 0)
		if err != nil || a.Pending || !slices.Equal(v.asked, want) {
			t.Errorf("a cancel at revision %d: %+v, %v, versions %v were asked for; want %v", revision, a, err, v.asked, want)
		}
	}
}

// No list of sagas begins where no page has ended.
func TestClient_refuses_cursors_that_are_none(t *testing.T) {
	c := clientOf(&register{})
	for _, cursor := range []string{"x", id.New(id.Endpoint, 7, 0, 1)} {
		if _, err := c.Sagas(t.Context(), false, cursor, 1); !isRejected(err, reject.InvalidID) {
			t.Errorf("Sagas behind %q = %v, want %s", cursor, err, reject.InvalidID)
		}
	}
}

// repeated is a replica that has had the request before and answers without waiting.
type repeated struct {
	register
	first bool
}

func (r *repeated) Propose(_ shard.ID, _ shard.Command, _ replica.Manner, _ time.Time, done func(shard.Result, error)) {
	done(shard.Result{Pending: r.order.Id, Replayed: !r.first}, nil)
}

// Who repeats a request and does not wait is told the outcome all the same, once there is one.
func TestClient_knows_what_has_been_decided_without_a_wait(t *testing.T) {
	for _, test := range []struct {
		name    string
		first   bool
		order   *orderpb.Order
		pending bool
		code    string
	}{
		{"the first request", true, &orderpb.Order{State: order.Placing}, true, ""},
		{"on its way", false, &orderpb.Order{State: order.Placing}, true, ""},
		{"confirmed", false, &orderpb.Order{State: order.Confirmed, SettledRevision: 4}, false, ""},
		{"refused", false, &orderpb.Order{State: order.Rejected, SettledRevision: 4, Reason: reject.OutOfStock}, false, reject.OutOfStock},
		{"too late", false, &orderpb.Order{State: order.Expired, SettledRevision: 4}, false, reject.DeadlineExceeded},
	} {
		test.order.Id = id.New(id.Order, 7, 0, 1)
		c := clientOf(&repeated{register{order: test.order}, test.first})
		a, err := c.Place(t.Context(), rest.Request{Key: "k"}, &orderpb.Place{}, 0)
		if isRejected(err, test.code) != (err != nil) || (test.code != "") != (err != nil) || a.Pending != test.pending || a.Value.GetId() != test.order.Id {
			t.Errorf("%s: Place = %v (pending %v), %v; want pending %v, code %q", test.name, a.Value, a.Pending, err, test.pending, test.code)
		}
	}
	for state, pending := range map[order.State]bool{order.Canceling: true, order.Canceled: false} {
		o := &orderpb.Order{Id: id.New(id.Order, 7, 0, 1), State: state}
		c := clientOf(&repeated{register{order: o}, false})
		if a, err := c.Cancel(t.Context(), rest.Request{Key: "k"}, &orderpb.Cancel{Id: o.Id}, 0); err != nil || a.Pending != pending {
			t.Errorf("a repeated cancel of an order that is %v: pending %v, %v; want %v", state, a.Pending, err, pending)
		}
	}
}
