package order

import (
	"fmt"
	"strings"
	"testing"

	"hanse/api/orderpb"
	"hanse/internal/golden"
	"hanse/internal/id"
	"hanse/internal/reject"
)

// The IDs of the tests: one object of each kind.
var (
	orderID       = id.New(id.Order, 7, 1000, 1)
	fulfillmentID = id.New(id.Fulfillment, 7, 1000, 2)
	otherShipment = id.New(id.Fulfillment, 7, 1000, 3)
	returnID      = id.New(id.Return, 7, 1000, 4)
	otherReturn   = id.New(id.Return, 7, 1000, 5)
	refundID      = id.New(id.Refund, 7, 1000, 6)
	otherRefund   = id.New(id.Refund, 7, 1000, 7)
)

// shardOf keeps SKUs that begin with b in shard 1 and the others in shard 0.
func shardOf(sku string) uint32 {
	if sku[0] == 'b' {
		return 1
	}
	return 0
}

// story is an order with all its events.
type story struct {
	o      *orderpb.Order
	events []*orderpb.Event
	now    int64
}

// then adds what a decision brought.
func (s *story) then(events []*orderpb.Event) *story {
	for _, e := range events {
		Fold(s.o, e)
		s.events = append(s.events, e)
	}
	return s
}

func must(events []*orderpb.Event, r *reject.Rejection) []*orderpb.Event {
	if r != nil {
		panic(fmt.Sprintf("%s at %q: %s", r.Code, r.Field, r.Detail))
	}
	return events
}

func place(lines ...*orderpb.Line) *story { return placed(false, lines) }

func placed(ahead bool, lines []*orderpb.Line) *story {
	s := &story{o: new(orderpb.Order), now: 1000}
	return s.then(must(DecidePlace(&orderpb.Place{
		Id: orderID, CustomerId: "ann", Currency: "EUR", PaymentMethod: "card", Lines: lines, AuthorizeAhead: ahead,
	}, shardOf, s.now)))
}

// twoLegs is an order of 3 a at 10, 2 b at 100 in another shard, and postage of 5: 235 in all.
func twoLegs() *story { return placed(false, twoLegLines()) }

// ahead is the same with the authorization ahead.
func ahead() *story { return placed(true, twoLegLines()) }

func twoLegLines() []*orderpb.Line {
	return []*orderpb.Line{
		{Sku: "a", Quantity: 3, UnitPrice: 10},
		{Sku: "b", Quantity: 2, UnitPrice: 100},
		{Sku: "post", Quantity: 1, UnitPrice: 5, Untracked: true},
	}
}

func held() *story {
	s := twoLegs()
	return s.then(StockHeld(s.o, 0, s.now)).then(StockHeld(s.o, 1, s.now))
}

func confirmed() *story {
	s := held()
	return s.then(PaymentAuthorized(s.o, 235, "ch_1", s.now))
}

func (s *story) cancel() *story {
	return s.then(must(DecideCancel(s.o, &orderpb.Cancel{Reason: "no"}, s.now)))
}

func (s *story) fulfill(fulfillment string, items ...*orderpb.Item) *story {
	return s.then(must(DecideFulfill(s.o, &orderpb.Fulfill{FulfillmentId: fulfillment, Items: items}, s.now)))
}

func (s *story) refund(refund string, amount int64) *story {
	return s.then(must(DecideRefund(s.o, &orderpb.RefundAmount{RefundId: refund, Amount: amount}, s.now)))
}

func (s *story) stuck(seq uint64, step string, amount int64) *story {
	return s.then(StepStuck(s.o, &orderpb.StuckStep{Seq: seq, Step: step, Cause: "no answer", Since: s.now, Amount: amount}, s.now))
}

func item(line uint32, quantity int64) *orderpb.Item {
	return &orderpb.Item{Line: line, Quantity: quantity}
}

// variants bring an order into each state, in each way that makes a difference to what comes next.
var variants = []struct {
	name  string
	state State
	make  func() *story
}{
	{"placed", Placing, twoLegs},
	{"one leg held", Placing, func() *story { s := twoLegs(); return s.then(StockHeld(s.o, 1, s.now)) }},
	{"free, being held", Placing, func() *story { return place(&orderpb.Line{Sku: "a", Quantity: 1}) }},
	{"placed, one leg", Placing, func() *story { return place(&orderpb.Line{Sku: "a", Quantity: 1, UnitPrice: 10}) }},
	{"placed, stuck", Placing, func() *story { return twoLegs().stuck(1, "reserve", 0) }},
	{"placed ahead", Placing, ahead},
	{"ahead, one leg held", Placing, func() *story { s := ahead(); return s.then(StockHeld(s.o, 1, s.now)) }},
	{"ahead, one leg held, paid", Placing, func() *story {
		s := ahead()
		return s.then(StockHeld(s.o, 1, s.now)).then(PaymentAuthorized(s.o, 235, "ch_1", s.now))
	}},
	{"ahead, free, being held", Placing, func() *story { return placed(true, []*orderpb.Line{{Sku: "a", Quantity: 1}}) }},
	{"held", AwaitingPayment, held},
	{"held, ahead", AwaitingPayment, func() *story {
		s := ahead()
		return s.then(StockHeld(s.o, 0, s.now)).then(StockHeld(s.o, 1, s.now))
	}},
	{"nothing to hold", AwaitingPayment, func() *story { return place(&orderpb.Line{Sku: "post", Quantity: 1, UnitPrice: 5, Untracked: true}) }},
	{"confirmed", Confirmed, confirmed},
	{"confirmed, free", Confirmed, func() *story {
		s := place(&orderpb.Line{Sku: "a", Quantity: 1})
		return s.then(StockHeld(s.o, 0, s.now))
	}},
	{"confirmed, free, untracked", Confirmed, func() *story { return place(&orderpb.Line{Sku: "post", Quantity: 1, Untracked: true}) }},
	{"partly fulfilled", PartiallyFulfilled, func() *story { return confirmed().fulfill(fulfillmentID, item(1, 2)) }},
	{"partly fulfilled, captured", PartiallyFulfilled, func() *story {
		s := confirmed().fulfill(fulfillmentID, item(1, 2))
		return s.then(PaymentCaptured(s.o, fulfillmentID, 20, s.now))
	}},
	{"partly fulfilled, capture failed", OnHold, func() *story {
		s := confirmed().fulfill(fulfillmentID, item(1, 2))
		return s.then(CaptureFailed(s.o, fulfillmentID, "expired_card", s.now)).stuck(1, StepCapture, 20)
	}},
	{"fulfilled, capture failed", OnHold, func() *story {
		s := confirmed().fulfill(fulfillmentID)
		return s.then(CaptureFailed(s.o, fulfillmentID, "expired_card", s.now)).stuck(1, StepCapture, 235)
	}},
	{"fulfilled", Fulfilled, func() *story { return confirmed().fulfill(fulfillmentID) }},
	{"fulfilled, captured", Fulfilled, func() *story {
		s := confirmed().fulfill(fulfillmentID)
		return s.then(PaymentCaptured(s.o, fulfillmentID, 235, s.now))
	}},
	{"fulfilled, rest canceled", Fulfilled, func() *story { return confirmed().fulfill(fulfillmentID, item(1, 2)).cancel() }},
	{"fulfilled, rest being voided", Fulfilled, func() *story {
		s := confirmed().fulfill(fulfillmentID, item(1, 2)).cancel()
		return s.then(PaymentCaptured(s.o, fulfillmentID, 20, s.now))
	}},
	{"fulfilled, returned, refund stuck", Fulfilled, func() *story {
		s := confirmed().fulfill(fulfillmentID)
		s.then(PaymentCaptured(s.o, fulfillmentID, 235, s.now))
		return s.then(must(DecideReturn(s.o, &orderpb.ReturnItems{ReturnId: returnID, Items: []*orderpb.Item{item(2, 1)}}, s.now))).stuck(1, StepRefund, 100)
	}},
	{"canceled while placing", Canceling, func() *story { return twoLegs().cancel() }},
	{"canceled while placing ahead", Canceling, func() *story { return ahead().cancel() }},
	{"canceled while paying", Canceling, func() *story { return held().cancel() }},
	{"canceled, voided", Canceling, func() *story { s := confirmed().cancel(); return s.then(PaymentVoided(s.o, 235, s.now)) }},
	{"canceled, one leg", Canceling, func() *story { return place(&orderpb.Line{Sku: "a", Quantity: 1, UnitPrice: 10}).cancel() }},
	{"canceled, nothing held", Canceling, func() *story {
		return place(&orderpb.Line{Sku: "post", Quantity: 1, UnitPrice: 5, Untracked: true}).cancel()
	}},
	{"expired while placing", Expiring, func() *story { s := twoLegs(); return s.then(DecideExpire(s.o, s.now)) }},
	{"expired while placing ahead", Expiring, func() *story { s := ahead(); return s.then(DecideExpire(s.o, s.now)) }},
	{"expired while paying", Expiring, func() *story { s := held(); return s.then(DecideExpire(s.o, s.now)) }},
	{"expired, one leg", Expiring, func() *story {
		s := place(&orderpb.Line{Sku: "a", Quantity: 1, UnitPrice: 10})
		return s.then(DecideExpire(s.o, s.now))
	}},
	{"one leg refused", Rejecting, func() *story {
		s := twoLegs()
		return s.then(StockRefused(s.o, 1, &reject.Rejection{Code: reject.OutOfStock}, s.now))
	}},
	{"ahead, one leg refused", Rejecting, func() *story {
		s := ahead()
		return s.then(StockRefused(s.o, 1, &reject.Rejection{Code: reject.OutOfStock}, s.now))
	}},
	{"ahead, one leg refused, paid", Rejecting, func() *story {
		s := ahead()
		s.then(PaymentAuthorized(s.o, 235, "ch_1", s.now))
		return s.then(StockRefused(s.o, 1, &reject.Rejection{Code: reject.OutOfStock}, s.now))
	}},
	{"ahead, declined", Rejecting, func() *story { s := ahead(); return s.then(PaymentDeclined(s.o, "stolen_card", s.now)) }},
	{"ahead, key refused", Rejecting, func() *story { s := ahead(); return s.then(keyRefused(s)) }},
	{"key refused while paying", Rejecting, func() *story { s := held(); return s.then(keyRefused(s)) }},
	{"declined", Rejecting, func() *story { s := held(); return s.then(PaymentDeclined(s.o, "stolen_card", s.now)) }},
	{"canceled", Canceled, func() *story {
		s := confirmed().cancel()
		s.then(PaymentVoided(s.o, 235, s.now))
		return s.then(StockReleased(s.o, 0, s.now)).then(StockReleased(s.o, 1, s.now))
	}},
	{"expired", Expired, func() *story {
		s := twoLegs()
		s.then(DecideExpire(s.o, s.now))
		return s.then(StockReleased(s.o, 0, s.now)).then(StockReleased(s.o, 1, s.now))
	}},
	{"rejected", Rejected, func() *story {
		s := place(&orderpb.Line{Sku: "a", Quantity: 1, UnitPrice: 10})
		return s.then(StockRefused(s.o, 0, &reject.Rejection{Code: reject.OutOfStock}, s.now))
	}},
	// Nothing leads there yet: the return window is not built. What the table says about it holds all the same.
	{"completed", Completed, func() *story {
		s := confirmed().fulfill(fulfillmentID)
		s.then(PaymentCaptured(s.o, fulfillmentID, 235, s.now))
		s.o.State = Completed
		return s
	}},
}

func keyRefused(s *story) []*orderpb.Event {
	return KeyRefused(s.o, &reject.Rejection{Code: reject.KeyReused, Detail: "use a new key"}, s.now)
}

// attempt is something that callers, services or the clock do to an order.
type attempt struct {
	name string
	do   func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection)
}

// answer makes an attempt of a decision that cannot be refused.
func answer(name string, do func(o *orderpb.Order, now int64) []*orderpb.Event) attempt {
	return attempt{name, func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) { return do(o, now), nil }}
}

var attempts = []attempt{
	{"cancel", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		return DecideCancel(o, &orderpb.Cancel{Reason: "no"}, now)
	}},
	{"cancel an older revision", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		return DecideCancel(o, &orderpb.Cancel{IfRevision: o.Revision + 1}, now)
	}},
	{"fulfill 1 of line 1", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		return DecideFulfill(o, &orderpb.Fulfill{FulfillmentId: otherShipment, Items: []*orderpb.Item{item(1, 1)}}, now)
	}},
	{"fulfill all", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		return DecideFulfill(o, &orderpb.Fulfill{FulfillmentId: otherShipment}, now)
	}},
	{"fulfill again", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		return DecideFulfill(o, &orderpb.Fulfill{FulfillmentId: fulfillmentID}, now)
	}},
	{"return 1 of line 1", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		return DecideReturn(o, &orderpb.ReturnItems{ReturnId: otherReturn, Items: []*orderpb.Item{item(1, 1)}}, now)
	}},
	{"return without refund", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		return DecideReturn(o, &orderpb.ReturnItems{ReturnId: otherReturn, Items: []*orderpb.Item{item(1, 1)}, NoRefund: true}, now)
	}},
	{"refund 1", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		return DecideRefund(o, &orderpb.RefundAmount{RefundId: otherRefund, Amount: 1}, now)
	}},
	{"retry step 1", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		return DecideRetry(o, &orderpb.RetryStep{Seq: 1, Operator: "kim"}, now)
	}},
	{"step 1 is done", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		return DecideResolve(o, &orderpb.ResolveStep{Seq: 1, Decision: DecisionDone, Evidence: "seen", Operator: "kim"}, fulfillmentID, now)
	}},
	{"step 1 is skipped", func(o *orderpb.Order, now int64) ([]*orderpb.Event, *reject.Rejection) {
		object := fulfillmentID
		if len(o.Refunds) > 0 {
			object = o.Refunds[0].Id
		}
		return DecideResolve(o, &orderpb.ResolveStep{Seq: 1, Decision: DecisionSkip, Evidence: "seen", Operator: "kim"}, object, now)
	}},
	answer("held by shard 0", func(o *orderpb.Order, now int64) []*orderpb.Event { return StockHeld(o, 0, now) }),
	answer("held by shard 9", func(o *orderpb.Order, now int64) []*orderpb.Event { return StockHeld(o, 9, now) }),
	answer("refused by shard 0", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return StockRefused(o, 0, &reject.Rejection{Code: reject.OutOfStock, Field: "/lines/0/quantity", Detail: "none left"}, now)
	}),
	answer("key refused", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return KeyRefused(o, &reject.Rejection{Code: reject.KeyReused, Detail: "use a new key"}, now)
	}),
	answer("too late for shard 0", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return StockRefused(o, 0, &reject.Rejection{Code: reject.MessageExpired}, now)
	}),
	answer("released by shard 0", func(o *orderpb.Order, now int64) []*orderpb.Event { return StockReleased(o, 0, now) }),
	answer("authorized", func(o *orderpb.Order, now int64) []*orderpb.Event { return PaymentAuthorized(o, o.Total, "ch_2", now) }),
	answer("declined", func(o *orderpb.Order, now int64) []*orderpb.Event { return PaymentDeclined(o, "stolen_card", now) }),
	answer("too late to authorize", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return PaymentDeclined(o, reject.MessageExpired, now)
	}),
	answer("voided", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return PaymentVoided(o, o.Authorized-o.Captured, now)
	}),
	answer("captured", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return PaymentCaptured(o, fulfillmentID, amountOf(o), now)
	}),
	answer("capture failed", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return CaptureFailed(o, fulfillmentID, "expired_card", now)
	}),
	answer("refunded", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return PaymentRefunded(o, firstRefund(o), 100, now)
	}),
	answer("refund failed", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return RefundFailed(o, firstRefund(o), "closed", now)
	}),
	answer("step 1 stuck", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return StepStuck(o, &orderpb.StuckStep{Seq: 1, Step: "allocate"}, now)
	}),
	answer("step 1 healed", func(o *orderpb.Order, now int64) []*orderpb.Event {
		return StepResolved(o, 1, DecisionDone, "", "", now)
	}),
	answer("deadline", func(o *orderpb.Order, now int64) []*orderpb.Event { return DecideExpire(o, now) }),
}

func amountOf(o *orderpb.Order) int64 {
	if f := fulfillmentOf(o, fulfillmentID); f != nil {
		return f.Amount
	}
	return 0
}

func firstRefund(o *orderpb.Order) string {
	if len(o.Refunds) > 0 {
		return o.Refunds[0].Id
	}
	return refundID
}

// Every pair of a state, in its variants, and something that may happen then: the golden file says what follows.
func TestEveryPairDoesWhatTheTableSays(t *testing.T) {
	listed := map[Transition]bool{} // without words; true once it was seen
	for _, r := range Transitions() {
		listed[Transition{From: r.From, Event: r.Event, To: r.To}] = false
	}
	covered := map[State]bool{}
	var got strings.Builder
	for _, v := range variants {
		covered[v.state] = true
		for _, a := range attempts {
			s := v.make()
			if s.o.State != v.state {
				t.Fatalf("%s is %s, want %s", v.name, StateName(s.o.State), StateName(v.state))
			}
			before := s.o.CloneVT()
			events, r := a.do(s.o, 2000)
			if !s.o.EqualVT(before) {
				t.Fatalf("%s, %s: the decision has changed the order", v.name, a.name)
			}
			fmt.Fprintf(&got, "%-33s %-25s ", v.name, a.name)
			if r != nil {
				if len(events) > 0 {
					t.Errorf("%s, %s: refused with events %v", v.name, a.name, events)
				}
				fmt.Fprintf(&got, "%s\n", strings.TrimSpace(r.Code+" "+r.Field))
				continue
			}
			if len(events) == 0 {
				got.WriteString("–\n")
				continue
			}
			for _, e := range events {
				from := s.o.State
				s.then([]*orderpb.Event{e})
				row := Transition{From: from, Event: KindOf(e), To: s.o.State}
				if _, ok := listed[row]; !ok {
					t.Errorf("%s, %s: %s leads from %s to %s, which table O does not list", v.name, a.name, KindOf(e), StateName(from), StateName(s.o.State))
				}
				listed[row] = true
				fmt.Fprintf(&got, "%s, ", EventType(e))
			}
			fmt.Fprintf(&got, "%s\n", StateName(s.o.State))
			if v.state != Completed { // its history is made up
				sound(t, v.name+", "+a.name, s)
			}
		}
	}
	for _, s := range States() {
		if !covered[s] {
			t.Errorf("no variant is %s", StateName(s))
		}
		for _, c := range Commands() {
			if _, ok := admission[c][s]; !ok {
				t.Errorf("table O does not say whether %s is looked at when an order is %s", c, StateName(s))
			}
		}
	}
	for _, v := range variants { // the events that made the variants
		s, o := v.make(), new(orderpb.Order)
		for _, e := range s.events {
			from := o.State
			Fold(o, e)
			listed[Transition{From: from, Event: KindOf(e), To: o.State}] = true
		}
	}
	for row, seen := range listed {
		if !seen && row.From != Completed && !unseen[row.Event] {
			t.Errorf("no attempt shows %s × %s → %s", StateName(row.From), row.Event, StateName(row.To))
		}
	}
	golden.Compare(t, "testdata/pairs.golden", got.String())
}

// unseen are kinds of events that come in (nearly) every state and change none: the variants show some of them.
var unseen = map[Kind]bool{KindStepStuck: true, KindStepResolved: true, KindPaymentRefunded: true, KindRefundFailed: true}

// Each command is refused with the code of the table, whatever its content, in each state that the table rules out.
func TestAdmissionIsWhatCommandsAreRefusedWith(t *testing.T) {
	decide := map[Command]func(o *orderpb.Order) *reject.Rejection{
		CommandCancel: func(o *orderpb.Order) *reject.Rejection {
			_, r := DecideCancel(o, &orderpb.Cancel{}, 1)
			return r
		},
		CommandFulfill: func(o *orderpb.Order) *reject.Rejection {
			_, r := DecideFulfill(o, &orderpb.Fulfill{FulfillmentId: otherShipment, Items: []*orderpb.Item{item(99, 1)}}, 1)
			return r
		},
		CommandReturn: func(o *orderpb.Order) *reject.Rejection {
			_, r := DecideReturn(o, &orderpb.ReturnItems{ReturnId: otherReturn, Items: []*orderpb.Item{item(99, 1)}}, 1)
			return r
		},
		CommandRefund: func(o *orderpb.Order) *reject.Rejection {
			_, r := DecideRefund(o, &orderpb.RefundAmount{RefundId: otherRefund, Amount: MaxAmount}, 1)
			return r
		},
	}
	content := map[Command]string{CommandFulfill: reject.UnknownLine, CommandReturn: reject.UnknownLine, CommandRefund: reject.RefundExceeds}
	for _, c := range Commands() {
		for _, v := range variants {
			want := Admits(c, v.state)
			if want == "" {
				want = content[c] // looked at, and then it is the content that is wrong
			}
			if got := code(decide[c](v.make().o)); got != want {
				t.Errorf("%s of an order that is %s = %q, want %q", c, v.name, got, want)
			}
		}
	}
}

func TestTableForTheDocumentation(t *testing.T) { golden.Compare(t, "testdata/table.golden", Table()) }

func code(r *reject.Rejection) string {
	if r == nil {
		return ""
	}
	return r.Code
}
