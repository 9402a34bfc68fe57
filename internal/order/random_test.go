package order

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hanse/api/orderpb"
	"hanse/internal/id"
	"hanse/internal/proptest"
	"hanse/internal/reject"
)

// Whatever callers, services and the clock do in whatever order: the order stays the fold of its events, quantities and
// money add up, and a refusal or an answer that comes too late changes nothing.
func TestRandomLivesStaySound(t *testing.T) {
	ends := map[string]int{}
	missing := func() []string {
		return proptest.Unseen(ends, StateName(Rejected), StateName(Canceled), StateName(Confirmed), StateName(Fulfilled))
	}
	proptest.Reach(t, missing, func(t *rapid.T) {
		var lines []*orderpb.Line
		for i := range rapid.IntRange(1, 4).Draw(t, "lines") {
			lines = append(lines, &orderpb.Line{
				Sku:      rapid.SampledFrom([]string{"a", "b", "post"}).Draw(t, "sku"),
				Quantity: rapid.Int64Range(1, 5).Draw(t, "quantity"), UnitPrice: rapid.SampledFrom([]int64{0, 1, 10, 99}).Draw(t, "price"),
			})
			lines[i].Untracked = lines[i].Sku == "post"
		}
		s := place(lines...)
		if rapid.IntRange(0, 2).Draw(t, "paid") > 0 { // else few lives get so far
			s.then(StockHeld(s.o, 0, s.now)).then(StockHeld(s.o, 1, s.now))
			s.then(PaymentAuthorized(s.o, s.o.Total, "ch", s.now))
		}
		versions := map[int]*orderpb.Order{len(s.events): s.o.CloneVT()}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			s.now += rapid.Int64Range(0, 1000).Draw(t, "time")
			before := s.o.CloneVT()
			name, events, r := randomStep(t, s)
			if !s.o.EqualVT(before) {
				t.Fatalf("%s: the decision has changed the order", name)
			}
			if r != nil && len(events) > 0 {
				t.Fatalf("%s: refused with %s and events %v", name, r.Code, events)
			}
			for _, e := range events {
				s.then([]*orderpb.Event{e})
				versions[len(s.events)] = s.o.CloneVT()
			}
			sound(t, name, s)
			if Ended(before.State) && len(events) > 0 && KindOf(events[0]) != KindStepStuck && KindOf(events[0]) != KindStepResolved {
				t.Fatalf("%s: an order that is %s went on with %v", name, StateName(before.State), events)
			}
			if before.SettledRevision != 0 && s.o.SettledRevision != before.SettledRevision {
				t.Fatalf("%s: settled at %d and then at %d", name, before.SettledRevision, s.o.SettledRevision)
			}
		}
		n := rapid.SampledFrom(slices.Sorted(maps.Keys(versions))).Draw(t, "version")
		if o := Replay(s.events[:n]); !o.EqualVT(versions[n]) {
			t.Fatalf("version %d is\n%v\nand was\n%v", n, o, versions[n])
		}
		ends[StateName(s.o.State)]++
	})
}

// randomStep makes a decision that mostly goes forward, so that lives get somewhere.
func randomStep(t *rapid.T, s *story) (string, []*orderpb.Event, *reject.Rejection) {
	o, now := s.o, s.now
	shard := uint32(rapid.IntRange(0, 1).Draw(t, "shard"))
	items := func() (items []*orderpb.Item) {
		for range rapid.IntRange(0, 2).Draw(t, "items") {
			items = append(items, item(uint32(rapid.IntRange(1, len(o.Lines)).Draw(t, "line")), rapid.Int64Range(1, 3).Draw(t, "n")))
		}
		return items
	}
	object := func(kind string) string { return id.New(kind, 7, 1000, uint64(rapid.IntRange(0, 3).Draw(t, kind))) }
	shipment := func() *orderpb.Fulfillment {
		if len(o.Fulfillments) == 0 {
			return &orderpb.Fulfillment{Id: fulfillmentID}
		}
		return rapid.SampledFrom(o.Fulfillments).Draw(t, "fulfillment")
	}
	refund := func() *orderpb.Refund {
		if len(o.Refunds) == 0 {
			return &orderpb.Refund{Id: refundID}
		}
		return rapid.SampledFrom(o.Refunds).Draw(t, "refund")
	}
	stuck := func() *orderpb.StuckStep {
		if len(o.Stuck) == 0 {
			return &orderpb.StuckStep{Seq: 1}
		}
		return rapid.SampledFrom(o.Stuck).Draw(t, "stuck")
	}
	switch rapid.IntRange(0, 19).Draw(t, "step") {
	case 0:
		if o.State == Confirmed && rapid.IntRange(0, 3).Draw(t, "stay") > 0 {
			return "nothing", nil, nil
		}
		events, r := DecideCancel(o, &orderpb.Cancel{}, now)
		return "cancel", events, r
	case 1:
		return "deadline", DecideExpire(o, now), nil
	case 2:
		return "refused", StockRefused(o, shard, &reject.Rejection{Code: reject.OutOfStock}, now), nil
	case 3:
		return "declined", PaymentDeclined(o, "no", now), nil
	case 4, 5, 6:
		return "held", StockHeld(o, shard, now), nil
	case 7:
		return "authorized", PaymentAuthorized(o, o.Total, "ch", now), nil
	case 8, 9:
		return "released", StockReleased(o, shard, now), nil
	case 10:
		return "voided", PaymentVoided(o, o.Authorized-o.Captured, now), nil
	case 11, 12:
		c := &orderpb.Fulfill{FulfillmentId: object(id.Fulfillment), Items: items()}
		events, r := DecideFulfill(o, c, now)
		return fmt.Sprintf("fulfill %v", c.Items), events, r
	case 13:
		f := shipment()
		events := PaymentCaptured(o, f.Id, f.Amount, now)
		for _, st := range o.Stuck {
			if st.Cause == f.Id { // its message is done with, in the same entry
				after := o.CloneVT()
				for _, e := range events {
					Fold(after, e)
				}
				events = append(events, StepResolved(after, st.Seq, DecisionDone, "", "", now)...)
			}
		}
		return "captured", events, nil
	case 14:
		f := shipment()
		if slices.ContainsFunc(o.Stuck, func(st *orderpb.StuckStep) bool { return st.Cause == f.Id }) {
			return "nothing", nil, nil
		}
		events := CaptureFailed(o, f.Id, "no", now)
		if len(events) > 0 { // the saga says at once that the step is stuck
			e := &orderpb.Event{OrderId: o.Id, Version: o.Revision + 2, At: now, Detail: &orderpb.Event_StepStuck{StepStuck: &orderpb.StepStuck{
				Step: &orderpb.StuckStep{Seq: o.Revision + 2, Step: StepCapture, Amount: f.Amount, Cause: f.Id},
			}}}
			events = append(events, e)
		}
		return "capture failed", events, nil
	case 15:
		c := &orderpb.ReturnItems{ReturnId: object(id.Return), Items: items(), NoRefund: rapid.Bool().Draw(t, "no refund")}
		events, r := DecideReturn(o, c, now)
		return fmt.Sprintf("return %v", c.Items), events, r
	case 16:
		events, r := DecideRefund(o, &orderpb.RefundAmount{RefundId: object(id.Refund), Amount: rapid.Int64Range(1, 100).Draw(t, "amount")}, now)
		return "refund", events, r
	case 17:
		r := refund()
		if o.Refunded+r.Amount > o.Captured { // the payment service does not refund what is not captured
			return "nothing", nil, nil
		}
		return "refunded", PaymentRefunded(o, r.Id, r.Amount, now), nil
	case 18:
		st := stuck()
		events, r := DecideRetry(o, &orderpb.RetryStep{Seq: st.Seq}, now)
		return "retry", events, r
	default:
		st := stuck()
		c := &orderpb.ResolveStep{Seq: st.Seq, Decision: DecisionSkip, Evidence: "seen"}
		if rapid.Bool().Draw(t, "done") {
			c.Decision = DecisionDone
		}
		c.TellPayment = rapid.Bool().Draw(t, "tell the payment")
		events, r := DecideResolve(o, c, st.Cause, now)
		if r != nil || c.Decision == DecisionSkip {
			return "skip", events, r
		}
		if c.TellPayment { // its answer comes as that of a capture
			return "done, if the payment agrees", events, nil
		}
		// Done: what it would have brought follows in the same entry.
		after := o.CloneVT()
		for _, e := range events {
			Fold(after, e)
		}
		f := fulfillmentOf(o, st.Cause)
		return "done", append(events, PaymentCaptured(after, st.Cause, f.GetAmount(), now)...), nil
	}
}

// FuzzPlace looks at orders of any content: they are refused with a place, or their books are right.
func FuzzPlace(f *testing.F) {
	f.Add(orderID, "EUR", "ann", "a", int64(3), int64(10), int64(30), true, 3)
	f.Add(orderID, "EUR", "", "b", int64(1), int64(0), int64(0), false, 1)
	f.Add(orderID, "eur", "ann", "a", int64(3), int64(10), int64(30), true, 3)
	f.Add("ord_1", "EUR", "ann", "a", int64(3), int64(10), int64(30), true, 3)
	f.Add(orderID, "EUR", "ann", " a", int64(MaxQuantity), int64(MaxAmount), int64(-1), true, MaxLines+1)
	f.Add(orderID, "EUR", "a\x00b", "a\xff", int64(-1), int64(-1), int64(0), false, 0)
	f.Fuzz(func(t *testing.T, orderID, currency, customer, sku string, quantity, price, total int64, hasTotal bool, lines int) {
		p := &orderpb.Place{Id: orderID, Currency: currency, CustomerId: customer, HasTotal: hasTotal, Total: total}
		for i := range min(max(lines, 0), MaxLines+1) {
			p.Lines = append(p.Lines, &orderpb.Line{Sku: sku, Quantity: quantity, UnitPrice: price, Untracked: i%3 == 2})
		}
		before := p.CloneVT()
		events, r := DecidePlace(p, func(string) uint32 { return 3 }, 1000)
		if !p.EqualVT(before) {
			t.Fatal("the decision has changed the command")
		}
		if r != nil {
			if len(events) > 0 || r.Code == "" || r.Detail == "" {
				t.Fatalf("refused with %+v and events %v", r, events)
			}
			return
		}
		s := (&story{o: new(orderpb.Order)}).then(events)
		sound(t, "placed", s)
		if quantity < 1 || price < 0 || len(p.Lines) == 0 || len(p.Lines) > MaxLines || len(currency) != 3 || hasTotal && total != s.o.Total {
			t.Fatalf("placed: %v", p)
		}
	})
}
