package ordershard_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/clock"
	"hanse/internal/cluster"
	"hanse/internal/id"
	"hanse/internal/order"
	"hanse/internal/payment"
	"hanse/internal/reactor"
	"hanse/internal/reject"
	"hanse/internal/saga"
	"hanse/internal/shard"
	"hanse/internal/shard/inventoryshard"
	"hanse/internal/shard/ordershard"
	"hanse/internal/shard/paymentshard"
	"hanse/internal/shardtest"
	"hanse/internal/slot"
)

// shop wires the machines of the order path with a reactor, in one goroutine, without replication.
type shop struct {
	tb       testing.TB
	layout   shard.Layout
	machines map[shard.ID]*machine
	reactor  *reactor.Reactor
	now      int64
	provider func(*paymentpb.ProviderCall) *paymentpb.ProviderAnswer
	calls    []*paymentpb.ProviderCall
	// waiting are deliveries to payments whose answer has not settled.
	waiting map[string][]reactor.Delivery
	settled map[string]bool
	lost    func(reactor.Delivery) bool // a delivery that does not arrive
	failed  func(reactor.Proposal) bool // a proposal of an answer that is not applied
	dies    func() bool                 // after the provider has been called, and before that is logged
	deaf    func() bool                 // the order is not told what the provider has said, before the payment is logged
	level   uint32                      // of features, at which orders are placed; 0 for the newest
	seed    uint64
	notes   []shard.StuckNote
}

type machine struct {
	*shardtest.Machine
	id shard.ID
}

func newShop(tb testing.TB) *shop {
	s := &shop{
		tb: tb, layout: shard.Layout{shard.Meta: 1, shard.Order: 1, shard.Inventory: 2, shard.Payment: 1, shard.Notification: 1, shard.Keyspace: 1},
		machines: make(map[shard.ID]*machine), now: 1_700_000_000_000,
		waiting: make(map[string][]reactor.Delivery), settled: make(map[string]bool),
		provider: accept,
	}
	rng := rand.New(rand.NewPCG(1, 1))
	s.reactor = reactor.New(reactor.DefaultConfig(), rng.Uint64)
	for _, sid := range s.layout.All() {
		var build func(*shard.State) shard.Logic
		switch sid.Service() {
		case shard.Order:
			build = ordershard.New(s.layout)
		case shard.Inventory:
			build = inventoryshard.New(s.layout)
		case shard.Payment:
			build = paymentshard.New()
		default:
			continue
		}
		s.machines[sid] = &machine{shardtest.New(tb, build), sid}
		s.reactor.Lead(sid, 1, nil, s.clock())
	}
	return s
}

func (s *shop) clock() clock.Reading { return clock.Reading{Mono: s.now, Wall: s.now} }

// restart writes the states back and opens the machines anew.
func (s *shop) restart() {
	for _, m := range s.machines {
		m.Restart()
		s.reactor.Lead(m.id, m.Index+1, m.Outbox(), s.clock())
	}
}

func accept(c *paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
	return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "ref_" + c.Op, Amount: c.Amount}
}

// apply runs one command on a shard.
func (s *shop) apply(to shard.ID, c shard.Command) shard.Result {
	m := s.machines[to]
	applied := m.Enter(s.now, c)
	s.reactor.Applied(to, applied.Emitted, applied.Finished, s.clock())
	s.notes = append(s.notes, applied.Stuck...)
	for _, key := range applied.Settled {
		s.settled[key] = true
		for _, d := range s.waiting[key] {
			s.answer(d, m.View(key), nil)
		}
		delete(s.waiting, key)
	}
	return applied.Results[0]
}

func (s *shop) answer(d reactor.Delivery, r shard.Result, err error) {
	s.reactor.Answered(d.From, d.Term, d.Message.Seq, r, err, s.clock())
}

// run delivers until nothing is left to do now.
func (s *shop) run() {
	for {
		actions := s.reactor.Take()
		if len(actions.Deliveries)+len(actions.Proposals) == 0 {
			return
		}
		for _, p := range actions.Proposals {
			if s.failed != nil && p.Seq != 0 && s.failed(p) {
				s.reactor.ProposalFailed(p.To, p.Term, p.Seq, s.clock())
				continue
			}
			s.apply(p.To, p.Command)
		}
		for _, d := range actions.Deliveries {
			s.deliver(d)
		}
	}
}

func (s *shop) deliver(d reactor.Delivery) {
	if s.lost != nil && s.lost(d) {
		s.answer(d, shard.Result{}, fmt.Errorf("lost"))
		return
	}
	if d.Message.To == shard.PSP {
		c := new(paymentpb.ProviderCall)
		if err := c.UnmarshalVT(d.Message.Payload); err != nil {
			s.tb.Fatal(err)
		}
		s.calls = append(s.calls, c)
		payload, _ := s.provider(c).MarshalVT()
		s.answer(d, shard.Result{Payload: payload}, nil)
		return
	}
	payload := d.Payload()
	if call, c := payment.First(payload, s.now); call != nil && d.Message.To.Service() == shard.Payment {
		s.calls = append(s.calls, call)
		c.GetAuthorize().Answer = s.provider(call)
		if heard := saga.Heard(c.GetAuthorize()); heard != nil && (s.deaf == nil || !s.deaf()) {
			told, _ := heard.MarshalVT()
			s.apply(orders, shard.Command{Kind: shard.KindLogic, Payload: told})
		}
		if s.dies != nil && s.dies() {
			s.answer(d, shard.Result{}, fmt.Errorf("the leader died"))
			return
		}
		payload, _ = c.MarshalVT()
	}
	r := s.apply(d.Message.To, shard.Command{Kind: shard.KindLogic, Payload: payload})
	if r.Pending != "" {
		s.waiting[r.Pending] = append(s.waiting[r.Pending], d)
		return
	}
	s.answer(d, r, nil)
}

// pass lets time go by, with all that becomes due in it.
func (s *shop) pass(ms int64) {
	until := s.now + ms
	for {
		next := until
		if due := s.reactor.NextDue(); due != 0 {
			next = min(next, due)
		}
		for _, sid := range s.layout.All() {
			if m := s.machines[sid]; m != nil && m.NextDue() != 0 {
				next = min(next, m.NextDue().Millis())
			}
		}
		s.now = max(s.now, next)
		for _, sid := range s.layout.All() {
			if m := s.machines[sid]; m != nil && m.NextDue() != 0 && m.NextDue().Millis() <= s.now {
				s.apply(sid, shard.Command{Kind: shard.KindTick})
			}
		}
		s.reactor.Tick(s.clock())
		s.run()
		if s.now >= until {
			return
		}
	}
}

func (s *shop) receive(sku string, n int64) {
	s.command(s.layout.Shard(shard.Inventory, slot.Of(sku)), &inventorypb.Command{Body: &inventorypb.Command_Receive{
		Receive: &inventorypb.Receive{Sku: sku, Quantity: n},
	}})
}

func (s *shop) item(sku string) *inventorypb.Item {
	q, _ := (&inventorypb.Query{Body: &inventorypb.Query_Find{Find: &inventorypb.FindItem{Sku: sku}}}).MarshalVT()
	r := s.machines[s.layout.Shard(shard.Inventory, slot.Of(sku))].Query(q)
	var list inventorypb.ItemList
	if err := list.UnmarshalVT(r.Payload); err != nil || len(list.Items) == 0 {
		s.tb.Fatalf("stock of %s: %+v", sku, r)
	}
	return list.Items[0]
}

func (s *shop) command(to shard.ID, c interface{ MarshalVT() ([]byte, error) }) shard.Result {
	payload, err := c.MarshalVT()
	if err != nil {
		s.tb.Fatal(err)
	}
	r := s.apply(to, shard.Command{Kind: shard.KindLogic, Payload: payload})
	s.run()
	return r
}

var orders = shard.NewID(shard.Order, 0)

func (s *shop) order(c *orderpb.Command) shard.Result { return s.command(orders, c) }

// newID makes the next ID of a kind.
func (s *shop) newID(kind string) string {
	s.seed++
	return id.New(kind, 7, s.now, s.seed)
}

func (s *shop) place(lines ...*orderpb.Line) string {
	p := &orderpb.Place{Id: s.newID(id.Order), CustomerId: "ann", Currency: "EUR", PaymentMethod: "card", Lines: lines}
	level := cmp.Or(s.level, cluster.FeatureLevel)
	p.AuthorizeAhead, p.CallFirst = level >= cluster.AuthorizeAhead, level >= cluster.CallFirst
	if r := s.order(&orderpb.Command{Body: &orderpb.Command_Place{Place: p}}); r.Code != "" {
		s.tb.Fatalf("place: %+v", r)
	}
	return p.Id
}

func line(sku string, quantity, price int64) *orderpb.Line {
	return &orderpb.Line{Sku: sku, Quantity: quantity, UnitPrice: price}
}

func (s *shop) find(orderID string) *orderpb.Order {
	q, _ := (&orderpb.Query{Body: &orderpb.Query_Find{Find: &orderpb.FindOrder{Id: orderID}}}).MarshalVT()
	r := s.machines[orders].Query(q)
	o := new(orderpb.Order)
	if err := o.UnmarshalVT(r.Payload); err != nil || !r.OK() {
		s.tb.Fatalf("find %s: %+v", orderID, r)
	}
	return o
}

// check compares every order with the fold of its events.
func (s *shop) check() {
	s.tb.Helper()
	for _, o := range s.scan().Orders {
		if o.Folded != nil {
			s.tb.Errorf("order %s is not the fold of its events:\n%v\n%v", o.Stored.Id, o.Stored, o.Folded)
		}
	}
}

func (s *shop) want(orderID string, state order.State, available map[string]int64) *orderpb.Order {
	s.tb.Helper()
	o := s.find(orderID)
	if o.State != state {
		s.tb.Fatalf("order is %s (%s), want %s", order.StateName(o.State), o.Reason, order.StateName(state))
	}
	for sku, want := range available {
		i := s.item(sku)
		if got := i.OnHand - i.Reserved - i.Allocated - i.Unavailable; got != want {
			s.tb.Errorf("%s: %d available, want %d: %v", sku, got, want, i)
		}
	}
	s.check()
	return o
}

func TestOrder_goes_from_place_to_refund(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	s.receive("B", 5)
	o := s.place(line("A", 2, 500), line("B", 1, 250), line("A", 1, 500), &orderpb.Line{Sku: "POST", Quantity: 1, UnitPrice: 100, Untracked: true})
	got := s.want(o, order.Confirmed, map[string]int64{"A": 7, "B": 4})
	if got.Authorized != 1850 || s.item("A").Allocated != 3 {
		t.Fatalf("authorized %d, allocated %d: %v", got.Authorized, s.item("A").Allocated, got)
	}
	s.restart()
	r := s.order(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: &orderpb.Fulfill{
		Id: o, FulfillmentId: s.newID(id.Fulfillment), Items: []*orderpb.Item{{Line: 1, Quantity: 2}},
	}}})
	if !r.OK() {
		t.Fatalf("fulfill: %+v", r)
	}
	got = s.want(o, order.PartiallyFulfilled, map[string]int64{"A": 7})
	if got.Captured != 1000 || s.item("A").OnHand != 8 {
		t.Errorf("captured %d, on hand %d", got.Captured, s.item("A").OnHand)
	}
	if r = s.order(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: &orderpb.Fulfill{Id: o, FulfillmentId: s.newID(id.Fulfillment)}}}); !r.OK() {
		t.Fatalf("fulfill the rest: %+v", r)
	}
	got = s.want(o, order.Fulfilled, map[string]int64{"A": 7, "B": 4})
	if got.Captured != 1850 || s.item("A").OnHand != 7 || s.item("B").OnHand != 4 {
		t.Errorf("captured %d, on hand %d and %d", got.Captured, s.item("A").OnHand, s.item("B").OnHand)
	}
	if r = s.order(&orderpb.Command{Body: &orderpb.Command_ReturnItems{ReturnItems: &orderpb.ReturnItems{
		Id: o, ReturnId: s.newID(id.Return), Items: []*orderpb.Item{{Line: 3, Quantity: 1}},
	}}}); !r.OK() {
		t.Fatalf("return: %+v", r)
	}
	got = s.want(o, order.Fulfilled, map[string]int64{"A": 8})
	if got.Refunded != 500 {
		t.Errorf("refunded %d", got.Refunded)
	}
	if r = s.order(&orderpb.Command{Body: &orderpb.Command_ReturnItems{ReturnItems: &orderpb.ReturnItems{
		Id: o, ReturnId: s.newID(id.Return), Items: []*orderpb.Item{{Line: 3, Quantity: 1}},
	}}}); r.Code != reject.ReturnExceeds {
		t.Errorf("a second return of the same: %+v", r)
	}
	if r = s.order(&orderpb.Command{Body: &orderpb.Command_RefundAmount{RefundAmount: &orderpb.RefundAmount{
		Id: o, RefundId: s.newID(id.Refund), Amount: 1350,
	}}}); !r.OK() {
		t.Fatalf("refund: %+v", r)
	}
	if got = s.want(o, order.Fulfilled, nil); got.Refunded != 1850 {
		t.Errorf("refunded %d", got.Refunded)
	}
	s.restart()
}

func TestOrder_without_stock_is_rejected_and_holds_nothing(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	s.receive("B", 1)
	o := s.place(line("A", 2, 500), line("B", 1, 250), line("B", 1, 250))
	got := s.want(o, order.Rejected, map[string]int64{"A": 10, "B": 1})
	if got.Reason != reject.OutOfStock || len(s.calls) != 0 {
		t.Errorf("reason %s, %d calls to the provider", got.Reason, len(s.calls))
	}
	o = s.place(line("A", 1, 500), line("nothing", 1, 1))
	if got = s.want(o, order.Rejected, map[string]int64{"A": 10}); got.Reason != reject.UnknownSKU {
		t.Errorf("reason %s", got.Reason)
	}
}

func TestDeclined_order_is_rejected_and_releases(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	s.provider = func(*paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
		return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "insufficient_funds"}
	}
	o := s.place(line("A", 2, 500))
	if got := s.want(o, order.Rejected, map[string]int64{"A": 10}); got.Reason != reject.PaymentDeclined || got.RejectDetail != "insufficient_funds" {
		t.Errorf("reason %s, %s", got.Reason, got.RejectDetail)
	}
}

func TestCancel_voids_before_it_releases(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	o := s.place(line("A", 2, 500))
	var steps []string
	s.lost = func(d reactor.Delivery) bool {
		if d.From == orders {
			steps = append(steps, d.Message.To.Service().String())
		}
		return false
	}
	if r := s.order(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: o, Reason: "changed my mind"}}}); !r.OK() || r.Pending != o+"/end" {
		t.Fatalf("cancel: %+v", r)
	}
	got := s.want(o, order.Canceled, map[string]int64{"A": 10})
	if got.Voided != 1000 || fmt.Sprint(steps) != "[payment inventory]" {
		t.Errorf("voided %d, steps %v, want payment before inventory", got.Voided, steps)
	}
	if r := s.order(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: o}}}); r.Code != reject.OrderTerminal {
		t.Errorf("cancel again: %+v", r)
	}
}

func TestUnknown_outcome_is_asked_for_by_the_same_key(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	charged := map[string]bool{}
	s.provider = func(c *paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
		if c.Query {
			if charged[c.Key] {
				return accept(c)
			}
			return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_FOUND}
		}
		charged[c.Key] = true
		return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_UNKNOWN}
	}
	o := s.place(line("A", 2, 500))
	s.want(o, order.AwaitingPayment, nil)
	s.pass(10_000)
	s.want(o, order.Confirmed, map[string]int64{"A": 8})
	if len(charged) != 1 {
		t.Errorf("%d charges, want 1: %v", len(charged), charged)
	}
}

func TestOrder_that_is_not_paid_in_time_expires(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	s.provider = func(*paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
		return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_UNKNOWN}
	}
	o := s.place(line("A", 2, 500))
	s.pass(order.PlacingTime.Milliseconds() + 1000)
	s.want(o, order.Expiring, nil)
	s.provider = accept // late money: it is voided and resurrects nothing
	s.pass(10 * 60_000)
	got := s.want(o, order.Expired, map[string]int64{"A": 10})
	if got.Authorized != 1000 || got.Voided != 1000 {
		t.Errorf("authorized %d, voided %d", got.Authorized, got.Voided)
	}
}

// The provider is left alone about stock that was never held. A new leader cannot know what the one before it has sent: it asks, and what was asked about is
// sent and taken back.
func TestCancel_while_the_reserve_is_lost_leaves_no_hold(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %v", restarted), func(t *testing.T) {
			s := newShop(t)
			psp := newFair()
			s.provider = psp.answer
			s.receive("A", 10)
			broken := true
			s.lost = func(d reactor.Delivery) bool { return broken && d.Message.To.Service() == shard.Inventory }
			o := s.place(line("A", 2, 500))
			if restarted {
				s.restart()
			}
			if r := s.order(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: o}}}); !r.OK() {
				t.Fatalf("cancel: %+v", r)
			}
			broken = false
			s.pass(40_000)
			got := s.want(o, order.Canceled, map[string]int64{"A": 10})
			if !restarted && len(s.calls) > 0 {
				t.Errorf("%d calls to the provider for stock that was never held: %v", len(s.calls), s.calls)
			}
			if authorized, _, voided, _ := psp.money(got.PaymentId); authorized != voided || restarted != (voided > 0) {
				t.Errorf("the provider has authorized %d and voided %d", authorized, voided)
			}
		})
	}
}

// payments counts the messages for payments in the outbox of orders.
func (s *shop) payments() (n int) {
	for _, m := range s.machines[orders].Outbox() {
		if m.To.Service() == shard.Payment {
			n++
		}
	}
	return n
}

func TestAuthorization_leaves_before_the_hold_is_on_record(t *testing.T) {
	s := newShop(t)
	psp := newFair()
	s.provider = psp.answer
	s.receive("A", 10)
	s.receive("B", 10) // of another shard
	s.deaf = func() bool { return true }
	s.failed = func(p reactor.Proposal) bool { return p.To == orders }
	o := s.place(line("A", 2, 500), line("B", 1, 500))
	if got := s.want(o, order.Placing, map[string]int64{"A": 8, "B": 9}); len(s.calls) != 1 || order.PaymentStatus(got) != "pending" {
		t.Fatalf("%d calls to the provider, payment %s; want 1, pending, though no answer has been applied", len(s.calls), order.PaymentStatus(got))
	}
	// The leader is gone, and its successor begins again: the receivers recognize the repeats.
	s.failed = nil
	s.restart()
	s.run()
	got := s.want(o, order.Confirmed, map[string]int64{"A": 8, "B": 9})
	if authorized, _, _, _ := psp.money(got.PaymentId); got.Authorized != 1500 || authorized != 1500 {
		t.Errorf("authorized %d, and the provider %d; want 1500", got.Authorized, authorized)
	}
}

func TestAuthorization_waits_for_every_hold(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	s.receive("B", 10)
	broken := true
	s.lost = func(d reactor.Delivery) bool {
		return broken && d.Message.To.Service() == shard.Inventory && d.Message.To.Index() == 0
	}
	o := s.place(line("A", 2, 500), line("B", 1, 500))
	s.pass(5_000)
	if s.want(o, order.Placing, nil); len(s.calls) != 0 {
		t.Fatalf("%d calls to the provider while one of two shards has not answered", len(s.calls))
	}
	s.restart()
	if s.pass(5_000); len(s.calls) != 0 || s.payments() != 1 {
		t.Fatalf("%d calls, %d messages for payments; want none, and the authorization in the outbox", len(s.calls), s.payments())
	}
	broken = false
	s.pass(40_000)
	s.want(o, order.Confirmed, map[string]int64{"A": 8, "B": 9})
}

// What has been refused in one shard is not paid, also when the refusal takes its time to be applied, and by a machine that has just been opened.
func TestAuthorization_never_leaves_after_a_refusal(t *testing.T) {
	for _, lines := range [][]*orderpb.Line{{line("B", 2, 500)}, {line("A", 2, 500), line("B", 2, 500)}} {
		for _, restarted := range []bool{false, true} {
			t.Run(fmt.Sprintf("of %d lines, restarted %v", len(lines), restarted), func(t *testing.T) {
				s := newShop(t)
				s.receive("A", 10)
				s.receive("B", 1)
				s.failed = func(p reactor.Proposal) bool { return p.To == orders }
				o := s.place(lines...)
				s.want(o, order.Placing, nil)
				s.failed = nil
				if restarted {
					s.restart()
				}
				s.pass(10_000)
				if s.want(o, order.Rejected, map[string]int64{"A": 10, "B": 1}); len(s.calls) != 0 || s.payments() != 0 {
					t.Errorf("%d calls to the provider, %d messages for payments, want none", len(s.calls), s.payments())
				}
			})
		}
	}
}

func TestCancel_takes_back_what_was_authorized_ahead(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %v", restarted), func(t *testing.T) {
			s := newShop(t)
			s.receive("A", 10)
			s.failed = func(p reactor.Proposal) bool { return p.To == orders }
			o := s.place(line("A", 2, 500))
			if s.want(o, order.Placing, nil); len(s.calls) != 1 {
				t.Fatalf("%d calls to the provider, want the authorization", len(s.calls))
			}
			s.failed = nil
			if restarted {
				s.restart()
			}
			if r := s.order(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: o}}}); !r.OK() {
				t.Fatalf("cancel: %+v", r)
			}
			s.pass(10_000)
			if got := s.want(o, order.Canceled, map[string]int64{"A": 10}); got.Voided != 1000 || s.payments() != 0 {
				t.Errorf("voided %d, %d messages for payments left; want 1000, none", got.Voided, s.payments())
			}
		})
	}
}

// A leader has called the provider, and dies before it can log that: whatever comes next finds what the provider has.
func TestAuthorization_that_was_never_logged(t *testing.T) {
	for _, told := range []bool{false, true} { // the order has heard of it all the same
		for _, then := range []string{"nothing", "cancel", "fulfill", "an hour without payments"} {
			t.Run(fmt.Sprintf("told %v, then %s", told, then), func(t *testing.T) {
				s := newShop(t)
				psp := newFair()
				s.provider = psp.answer
				s.receive("A", 10)
				s.deaf = func() bool { return !told }
				s.dies = func() bool { return true }
				o := s.place(line("A", 2, 500))
				if authorized, _, _, _ := psp.money(s.find(o).PaymentId); authorized != 1000 || s.payments() != 1 {
					t.Fatalf("the provider has authorized %d, and the outbox has %d messages for payments; want 1000 and one", authorized, s.payments())
				}
				if got := s.find(o); (got.State == order.Confirmed) != told {
					t.Fatalf("the order is %s", order.StateName(got.State))
				}
				s.dies = nil
				want, captured, voided := order.Confirmed, int64(0), int64(0)
				switch {
				case then == "cancel":
					want, voided = order.Canceled, 1000
					if r := s.order(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: o}}}); !r.OK() {
						t.Fatalf("cancel: %+v", r)
					}
				case then == "fulfill" && told: // the capture waits for the payment to be on record
					want, captured = order.Fulfilled, 1000
					if r := s.order(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: &orderpb.Fulfill{Id: o, FulfillmentId: s.newID(id.Fulfillment)}}}); !r.OK() {
						t.Fatalf("fulfill: %+v", r)
					}
				}
				if then == "an hour without payments" {
					s.lost = func(d reactor.Delivery) bool { return d.Message.To.Service() == shard.Payment }
					s.pass(60 * 60_000)
					if got := s.find(o); told && len(got.Stuck) == 0 {
						t.Errorf("nobody is told that the payment is not on record: %s", summary(got))
					}
					for _, step := range s.find(o).Stuck { // it cannot be given up, nor taken for done
						for _, decision := range []string{order.DecisionSkip, order.DecisionDone} {
							if r := s.order(&orderpb.Command{Body: &orderpb.Command_ResolveStep{ResolveStep: &orderpb.ResolveStep{
								Id: o, Seq: step.Seq, Decision: decision, Evidence: "x", Operator: "kim",
							}}}); told && (step.Step != order.StepAuthorize || r.Code != reject.OrderState) {
								t.Errorf("%s of %s: %q, want it refused", decision, step.Step, r.Code)
							}
						}
					}
					s.lost = nil
					if s.pass(10 * 60_000); told { // there is something to capture
						want, captured = order.Fulfilled, 1000
						if r := s.order(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: &orderpb.Fulfill{Id: o, FulfillmentId: s.newID(id.Fulfillment)}}}); !r.OK() {
							t.Fatalf("fulfill: %+v", r)
						}
					} else {
						want, voided = order.Expired, 1000
					}
				}
				s.pass(10_000)
				got := s.want(o, want, nil)
				if a, c, v, _ := psp.money(got.PaymentId); a != 1000 || c != captured || v != voided || got.Voided != voided || got.Captured != captured || s.payments() != 0 {
					t.Errorf("the provider has authorized %d, captured %d and voided %d, the order captured %d and voided %d, %d messages for payments left; want 1000, %d, %d, none",
						a, c, v, got.Captured, got.Voided, s.payments(), captured, voided)
				}
			})
		}
	}
}

func TestDeclined_capture_waits_for_a_person_who_can_retry(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	o := s.place(line("A", 2, 500))
	s.provider = func(c *paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
		return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "expired_card"}
	}
	s.order(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: &orderpb.Fulfill{Id: o, FulfillmentId: s.newID(id.Fulfillment)}}})
	got := s.want(o, order.OnHold, nil)
	if len(got.Stuck) != 1 || got.Stuck[0].Step != "capture" || got.Stuck[0].Amount != 1000 {
		t.Fatalf("stuck: %v", got.Stuck)
	}
	s.provider = accept
	if r := s.order(&orderpb.Command{Body: &orderpb.Command_RetryStep{RetryStep: &orderpb.RetryStep{Id: o, Seq: got.Stuck[0].Seq, Operator: "kim"}}}); !r.OK() {
		t.Fatalf("retry: %+v", r)
	}
	if got = s.want(o, order.Fulfilled, nil); got.Captured != 1000 || len(got.Stuck) != 0 {
		t.Errorf("after the retry: %v", got)
	}
	if len(s.notes) != 2 || s.notes[0].Key != o || s.notes[0].Step != "capture" || s.notes[0].Cause == "" || s.notes[1] != (shard.StuckNote{Key: o, Over: true}) {
		t.Errorf("who watches the shard was told %+v, want that the capture is stuck and that the order goes on", s.notes)
	}
	s.restart()
}

func TestDeclined_capture_can_be_resolved_by_hand(t *testing.T) {
	for _, decision := range []string{order.DecisionDone, order.DecisionSkip} {
		t.Run(decision, func(t *testing.T) {
			s := newShop(t)
			s.receive("A", 10)
			o := s.place(line("A", 2, 500))
			s.provider = func(c *paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
				if c.Kind == paymentpb.OpKind_VOID {
					return accept(c)
				}
				return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "expired_card"}
			}
			s.order(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: &orderpb.Fulfill{Id: o, FulfillmentId: s.newID(id.Fulfillment)}}})
			got := s.want(o, order.OnHold, nil)
			r := s.order(&orderpb.Command{Body: &orderpb.Command_ResolveStep{ResolveStep: &orderpb.ResolveStep{
				Id: o, Seq: got.Stuck[0].Seq, Decision: decision, Evidence: "bank statement", Operator: "kim",
			}}})
			if !r.OK() {
				t.Fatalf("resolve: %+v", r)
			}
			got = s.want(o, order.Fulfilled, nil)
			if want := map[string]int64{order.DecisionDone: 1000, order.DecisionSkip: 0}[decision]; got.Captured != want || len(got.Stuck) != 0 {
				t.Errorf("captured %d, want %d; stuck %v", got.Captured, want, got.Stuck)
			}
			s.pass(1000)
			s.check()
		})
	}
}

func TestRest_of_a_partly_fulfilled_order_is_canceled_and_voided(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	o := s.place(line("A", 5, 100))
	s.order(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: &orderpb.Fulfill{Id: o, FulfillmentId: s.newID(id.Fulfillment), Items: []*orderpb.Item{{Line: 1, Quantity: 2}}}}})
	s.order(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: o, Reason: "enough"}}})
	got := s.want(o, order.Fulfilled, map[string]int64{"A": 8})
	if got.Captured != 200 || got.Voided != 300 || got.Lines[0].Canceled != 3 || s.item("A").Allocated != 0 {
		t.Errorf("captured %d, voided %d, canceled %d, allocated %d", got.Captured, got.Voided, got.Lines[0].Canceled, s.item("A").Allocated)
	}
}

// What waits for its next attempt is alone in its lane: an order's other operations do not wait behind it.
func TestRefusedStepDoesNotHoldUpOthers(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	o := s.place(line("A", 5, 100))
	s.order(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: &orderpb.Fulfill{Id: o, FulfillmentId: s.newID(id.Fulfillment)}}})
	s.provider = func(*paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
		return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "account_closed"}
	}
	refund := func(amount int64) {
		s.order(&orderpb.Command{Body: &orderpb.Command_RefundAmount{RefundAmount: &orderpb.RefundAmount{Id: o, RefundId: s.newID(id.Refund), Amount: amount}}})
	}
	refund(300)
	if got := s.find(o); got.Refunded != 0 || len(got.Stuck) != 1 {
		t.Fatalf("declined: %s", summary(got))
	}
	s.provider = accept
	refund(200)
	if got := s.find(o); got.Refunded != 200 {
		t.Errorf("refunded %d, want 200 at once: %s", got.Refunded, summary(got))
	}
	s.restart()
	s.pass(300_000)
	if got := s.find(o); got.Refunded != 500 || len(got.Stuck) != 0 {
		t.Errorf("refunded %d, want 500 after the pause: %s", got.Refunded, summary(got))
	}
}

func BenchmarkPlaceToConfirmed(b *testing.B) {
	s := newShop(b)
	skus := make([]string, 1000)
	for i := range skus {
		skus[i] = fmt.Sprintf("sku-%04d", i)
		s.receive(skus[i], 1_000_000_000)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		s.place(line(skus[i%1000], 1, 500), line(skus[(i+333)%1000], 2, 500), line(skus[(i+666)%1000], 1, 250))
		i++
		if i%1000 == 0 {
			for _, m := range s.machines {
				m.WriteBack()
			}
		}
	}
}
