package saga

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/golden"
	"hanse/internal/id"
	"hanse/internal/order"
	"hanse/internal/reject"
)

var (
	orderID       = id.New(id.Order, 7, 1000, 1)
	fulfillmentID = id.New(id.Fulfillment, 7, 1000, 2)
	returnID      = id.New(id.Return, 7, 1000, 3)
	refundID      = id.New(id.Refund, 7, 1000, 4)
)

// shardOf keeps SKUs that begin with b in shard 1 and the others in shard 0.
func shardOf(sku string) uint32 {
	if sku[0] == 'b' {
		return 1
	}
	return 0
}

// tale is an order on its way, with all that was sent for it.
type tale struct {
	o     *orderpb.Order
	sends []Send
	log   strings.Builder
	pairs map[[2]string]bool // kind of event, step
	early []string           // what was released while money might still move
}

func begin(lines ...*orderpb.Line) *tale {
	t := &tale{o: new(orderpb.Order), pairs: make(map[[2]string]bool)}
	return t.decided(order.DecidePlace(&orderpb.Place{Id: orderID, Currency: "EUR", PaymentMethod: "card", Lines: lines}, shardOf, 1000))
}

// twoLegs is an order of 3 a at 10 in two lines, 2 b at 100 in another shard, and postage of 5: 235 in all.
func twoLegs() *tale {
	return begin(
		&orderpb.Line{Sku: "a", Quantity: 2, UnitPrice: 10},
		&orderpb.Line{Sku: "b", Quantity: 2, UnitPrice: 100},
		&orderpb.Line{Sku: "a", Quantity: 1, UnitPrice: 10},
		&orderpb.Line{Sku: "post", Quantity: 1, UnitPrice: 5, Untracked: true},
	)
}

func (t *tale) decided(events []*orderpb.Event, r *reject.Rejection) *tale {
	if r != nil {
		panic(r.Code + ": " + r.Detail)
	}
	return t.then(events)
}

func (t *tale) then(events []*orderpb.Event) *tale {
	for _, e := range events {
		before := t.o.Payment
		order.Fold(t.o, e)
		sends := Follow(nil, t.o, e, before, shardOf)
		fmt.Fprintf(&t.log, "  %s\n", order.EventType(e))
		for _, s := range sends {
			t.pairs[[2]string{order.KindOf(e).String(), s.Step.String()}] = true
			fmt.Fprintf(&t.log, "    -> %s\n", show(s))
			if p := t.o.Payment; s.Step == Release && p != orderpb.PaymentStep_PAYMENT_NONE &&
				p != orderpb.PaymentStep_PAYMENT_DECLINED && p != orderpb.PaymentStep_PAYMENT_VOIDED {
				t.early = append(t.early, fmt.Sprintf("%s with the payment %s", show(s), p))
			}
		}
		t.sends = append(t.sends, sends...)
	}
	return t
}

func (t *tale) held() *tale {
	t.then(order.StockHeld(t.o, 0, 1000))
	return t.then(order.StockHeld(t.o, 1, 1000))
}
func (t *tale) paid() *tale { return t.then(order.PaymentAuthorized(t.o, t.o.Total, "ch_1", 1000)) }
func (t *tale) cancel() *tale {
	return t.decided(order.DecideCancel(t.o, &orderpb.Cancel{Reason: "no"}, 1000))
}
func (t *tale) fulfill(items ...*orderpb.Item) *tale {
	return t.decided(order.DecideFulfill(t.o, &orderpb.Fulfill{FulfillmentId: fulfillmentID, Items: items}, 1000))
}
func (t *tale) captured() *tale {
	return t.then(order.PaymentCaptured(t.o, fulfillmentID, t.o.Fulfillments[0].Amount, 1000))
}
func (t *tale) returned(d orderpb.Disposition, items ...*orderpb.Item) *tale {
	return t.decided(order.DecideReturn(t.o, &orderpb.ReturnItems{ReturnId: returnID, Items: items, Disposition: d}, 1000))
}
func (t *tale) stuck(seq uint64, step string, amount int64) *tale {
	return t.then(order.StepStuck(t.o, &orderpb.StuckStep{Seq: seq, Step: step, Amount: amount}, 1000))
}

func item(line uint32, quantity int64) *orderpb.Item {
	return &orderpb.Item{Line: line, Quantity: quantity}
}

var names = strings.NewReplacer(orderID, "o1", id.Sibling(id.Payment, orderID), "pay:o1", fulfillmentID, "f1", returnID, "r1",
	id.Sibling(id.Refund, returnID), "rfd:r1", refundID, "x1")

func show(s Send) string {
	if s.Inventory != nil {
		return names.Replace(fmt.Sprintf("inventory/%d %s %s", s.Leg, s.Step, inventoryText(s.Inventory)))
	}
	switch c := s.Payment.Body.(type) {
	case *paymentpb.Command_Authorize:
		a := c.Authorize
		return names.Replace(fmt.Sprintf("payment authorize %s of %s: %d %s by %s until %d", a.PaymentId, a.OrderId, a.Amount, a.Currency, a.Method, a.Expires))
	case *paymentpb.Command_Capture:
		return names.Replace(fmt.Sprintf("payment capture %s %s: %d", c.Capture.PaymentId, c.Capture.Op, c.Capture.Amount))
	case *paymentpb.Command_Void:
		return names.Replace(fmt.Sprintf("payment void %s %s", c.Void.PaymentId, c.Void.Op))
	case *paymentpb.Command_Refund:
		return names.Replace(fmt.Sprintf("payment refund %s %s: %d", c.Refund.PaymentId, c.Refund.Op, c.Refund.Amount))
	}
	return "unknown"
}

func inventoryText(c *inventorypb.Command) string {
	switch c := c.Body.(type) {
	case *inventorypb.Command_Reserve:
		r := c.Reserve
		return fmt.Sprintf("%s at %s%s until %d, due %d", r.HoldId, r.Location, demandText(r.Demands), r.Expires, r.Due)
	case *inventorypb.Command_Allocate:
		return c.Allocate.HoldId
	case *inventorypb.Command_Release:
		return fmt.Sprintf("%s %s%s", c.Release.HoldId, c.Release.Op, demandText(c.Release.Demands))
	case *inventorypb.Command_Fulfill:
		return fmt.Sprintf("%s %s%s", c.Fulfill.HoldId, c.Fulfill.Op, demandText(c.Fulfill.Demands))
	case *inventorypb.Command_Restock:
		return fmt.Sprintf("%s %s%s damaged %v", c.Restock.HoldId, c.Restock.Op, demandText(c.Restock.Demands), c.Restock.Damaged)
	}
	return "unknown"
}

func demandText(demands []*inventorypb.Demand) string {
	var b strings.Builder
	for _, d := range demands {
		fmt.Fprintf(&b, " %d %s (line %d)", d.Quantity, d.Sku, d.Line)
	}
	return b.String()
}

// tales lead through every rule.
var tales = []struct {
	name string
	make func() *tale
}{
	{"to the end and back", func() *tale {
		return twoLegs().held().paid().fulfill(item(1, 1), item(2, 1), item(3, 1), item(4, 1)).captured().
			returned(orderpb.Disposition_SELLABLE, item(1, 1), item(2, 1), item(3, 1))
	}},
	{"damaged", func() *tale {
		return twoLegs().held().paid().fulfill().captured().returned(orderpb.Disposition_DAMAGED, item(2, 2))
	}},
	{"lost", func() *tale {
		return twoLegs().held().paid().fulfill().captured().returned(orderpb.Disposition_LOST, item(2, 2))
	}},
	{"only postage comes back", func() *tale {
		return twoLegs().held().paid().fulfill().captured().returned(orderpb.Disposition_SELLABLE, item(4, 1))
	}},
	{"refunded without goods", func() *tale {
		t := twoLegs().held().paid().fulfill().captured()
		return t.decided(order.DecideRefund(t.o, &orderpb.RefundAmount{RefundId: refundID, Amount: 7}, 1000))
	}},
	{"nothing is tracked", func() *tale {
		return begin(&orderpb.Line{Sku: "post", Quantity: 1, UnitPrice: 5, Untracked: true}).paid().fulfill().captured()
	}},
	{"free", func() *tale { return begin(&orderpb.Line{Sku: "a", Quantity: 1}).held().fulfill() }},
	{"free and not tracked", func() *tale { return begin(&orderpb.Line{Sku: "post", Quantity: 1, Untracked: true}).fulfill() }},
	{"refused", func() *tale {
		t := twoLegs().then(nil)
		return t.then(order.StockRefused(t.o, 0, &reject.Rejection{Code: reject.OutOfStock}, 1000)).then(order.StockReleased(t.o, 1, 1000))
	}},
	{"key refused", func() *tale {
		t := twoLegs()
		t.then(order.KeyRefused(t.o, &reject.Rejection{Code: reject.KeyReused}, 1000))
		return t.then(order.StockReleased(t.o, 0, 1000)).then(order.StockReleased(t.o, 1, 1000))
	}},
	{"key refused, nothing is tracked", func() *tale {
		t := begin(&orderpb.Line{Sku: "post", Quantity: 1, UnitPrice: 5, Untracked: true})
		return t.then(order.KeyRefused(t.o, &reject.Rejection{Code: reject.KeyReused}, 1000))
	}},
	{"declined", func() *tale {
		t := twoLegs().held()
		t.then(order.PaymentDeclined(t.o, "stolen_card", 1000))
		return t.then(order.StockReleased(t.o, 0, 1000)).then(order.StockReleased(t.o, 1, 1000))
	}},
	{"canceled while placing", func() *tale { return twoLegs().cancel() }},
	{"canceled while paying", func() *tale {
		t := twoLegs().held().cancel()
		t.paid() // late
		return t.then(order.PaymentVoided(t.o, 235, 1000))
	}},
	{"canceled after it was confirmed", func() *tale {
		t := twoLegs().held().paid().cancel()
		return t.then(order.PaymentVoided(t.o, 235, 1000))
	}},
	{"canceled, free", func() *tale { return begin(&orderpb.Line{Sku: "a", Quantity: 1}).held().cancel() }},
	{"deadline while placing", func() *tale { t := twoLegs(); return t.then(order.DecideExpire(t.o, 1000)) }},
	{"deadline while paying", func() *tale { t := twoLegs().held(); return t.then(order.DecideExpire(t.o, 1000)) }},
	{"rest canceled, nothing is being captured", func() *tale {
		return twoLegs().held().paid().fulfill(item(1, 1)).captured().cancel()
	}},
	{"rest canceled while capturing", func() *tale {
		return twoLegs().held().paid().fulfill(item(1, 1)).cancel().captured()
	}},
	{"capture given up", func() *tale {
		t := twoLegs().held().paid().fulfill()
		t.then(order.CaptureFailed(t.o, fulfillmentID, "expired_card", 1000)).stuck(9, order.StepCapture, 235)
		return t.decided(order.DecideResolve(t.o, &orderpb.ResolveStep{Seq: 9, Decision: order.DecisionSkip, Evidence: "lost"}, fulfillmentID, 1000))
	}},
}

func TestFollowDoesWhatTheRulesSay(t *testing.T) {
	want := map[[2]string]bool{}
	for _, r := range Rules() {
		if r.Send != Claim { // the key is nothing that the order has: the claim is sent with its place
			want[[2]string{r.After.String(), r.Send.String()}] = false
		}
	}
	var got strings.Builder
	for _, c := range tales {
		tale := c.make()
		fmt.Fprintf(&got, "%s: %s\n%s", c.name, order.StateName(tale.o.State), tale.log.String())
		for pair := range tale.pairs {
			if _, ok := want[pair]; !ok {
				t.Errorf("%s: %s sends %s, which no rule says", c.name, pair[0], pair[1])
			}
			want[pair] = true
		}
	}
	for pair, seen := range want {
		if !seen {
			t.Errorf("no tale shows that %s sends %s", pair[0], pair[1])
		}
	}
	golden.Compare(t, "testdata/tales.golden", got.String())
}

func TestTableForTheDocumentation(t *testing.T) { golden.Compare(t, "testdata/table.golden", Table()) }

// A step before the pivot has what takes it back.
func TestStepsBeforeThePivotCanBeUndone(t *testing.T) {
	for _, r := range Rules() {
		before := r.After == order.KindPlaced || r.After == order.KindStockReserved
		if before && r.Undo == None && r.Send != Claim { // the key stays the request's, whatever comes of it
			t.Errorf("%s after %s has no compensation", r.Send, r.After)
		}
	}
}

// Money is given back before stock is released: at no time does an order that is being undone release while it may be charged.
func TestVoidComesBeforeRelease(t *testing.T) {
	for _, c := range tales {
		for _, early := range c.make().early {
			t.Errorf("%s: %s", c.name, early)
		}
	}
}

func encodedSend(s Send) (Service, []byte) {
	if s.Inventory != nil {
		return Inventory, Encode(s.Inventory)
	}
	return Payment, Encode(s.Payment)
}

// What orders are asked is no step, and what claims a key is.
func TestClaimIsReadBack(t *testing.T) {
	claim := ClaimCommand(&orderpb.ClaimKey{Caller: "anonymous", Key: "k", RequestHash: 7})
	if sent, err := Read(twoLegs().o, Keys, 0, claim, shardOf); err != nil || sent != (Sent{Step: Claim}) {
		t.Errorf("Read(claim) = %+v, %v", sent, err)
	}
	ask := Encode(&orderpb.Command{Body: &orderpb.Command_AskHold{AskHold: &orderpb.AskHold{Id: orderID}}})
	for name, c := range map[string]struct {
		payload []byte
		want    Step
	}{"claim": {claim, Claim}, "question": {ask, None}, "nothing": {nil, None}, "a field of two bytes": {[]byte{0xfa, 1}, None}} {
		if step, known := StepOf(Keys, c.payload); step != c.want || known != (c.want != None) {
			t.Errorf("StepOf(%s) = %s, %v, want %s", name, step, known, c.want)
		}
	}
}

// What is sent is known again from the outbox.
func TestSentIsReadBack(t *testing.T) {
	for _, c := range tales {
		tale := c.make()
		for _, s := range tale.sends {
			to, payload := encodedSend(s)
			sent, err := Read(tale.o, to, s.Leg, payload, shardOf)
			if err != nil || sent.Step != s.Step || sent.Leg != s.Leg {
				t.Errorf("%s: %s was read back as %+v, %v", c.name, show(s), sent, err)
			}
			if step, known := StepOf(to, payload); known && step != s.Step {
				t.Errorf("%s: StepOf(%s) = %s", c.name, show(s), step)
			}
			if s.Step == Capture && (sent.Op != fulfillmentID || sent.Amount == 0) || s.Step == Reserve && sent.Units == 0 {
				t.Errorf("%s: %s is at risk with %+v", c.name, show(s), sent)
			}
		}
	}
}

func TestNextAttemptKeepsTheOperation(t *testing.T) {
	tale := twoLegs()
	op := Again(fulfillmentID, "3")
	for _, c := range []*paymentpb.Command{CaptureOf(tale.o, op, 20), RefundOf(tale.o, op, 20), VoidOf(tale.o, op)} {
		payload, err := c.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		sent, err := Read(tale.o, Payment, 0, payload, shardOf)
		if err != nil || sent.Op != fulfillmentID || sent.Attempt != "3" {
			t.Errorf("Read(%v) = %+v, %v; want %s, attempt 3", c, sent, err, fulfillmentID)
		}
	}
}

// outcomes are what a service may answer.
var outcomes = []struct {
	name string
	out  Outcome
}{
	{"done", Outcome{}},
	{"out of stock", Outcome{Refused: &reject.Rejection{Code: reject.OutOfStock, Field: "/lines/0/quantity"}}},
	{"too late", Outcome{Refused: &reject.Rejection{Code: reject.MessageExpired}}},
	{"hold canceled", Outcome{Refused: &reject.Rejection{Code: reject.HoldCanceled}}},
	{"succeeded", Outcome{Payment: &paymentpb.Outcome{Status: paymentpb.OutcomeStatus_SUCCEEDED, Amount: 235, ProviderReference: "ch_1"}}},
	{"declined", Outcome{Payment: &paymentpb.Outcome{Status: paymentpb.OutcomeStatus_DECLINED, Code: "no"}}},
	{"canceled", Outcome{Payment: &paymentpb.Outcome{Status: paymentpb.OutcomeStatus_CANCELED, Code: "voided_before"}}},
}

// stands are orders that an answer, or an operator's word, may find.
var stands = []struct {
	name string
	make func() *tale
}{
	{"placing", twoLegs},
	{"awaiting payment", func() *tale { return twoLegs().held() }},
	{"confirmed", func() *tale { return twoLegs().held().paid() }},
	{"fulfilled", func() *tale { return twoLegs().held().paid().fulfill() }},
	{"fulfilled, refund asked for", func() *tale {
		return twoLegs().held().paid().fulfill().captured().returned(orderpb.Disposition_SELLABLE, item(1, 1))
	}},
	{"fulfilled, voiding the rest", func() *tale { return twoLegs().held().paid().fulfill(item(1, 1)).captured().cancel() }},
	{"canceling, releasing", func() *tale { return twoLegs().cancel() }},
	{"canceling, voiding", func() *tale { return twoLegs().held().paid().cancel() }},
	{"expiring, voiding", func() *tale { t := twoLegs().held(); return t.then(order.DecideExpire(t.o, 1000)) }},
	{"rejected", func() *tale {
		t := begin(&orderpb.Line{Sku: "a", Quantity: 1, UnitPrice: 10})
		return t.then(order.StockRefused(t.o, 0, &reject.Rejection{Code: reject.OutOfStock}, 1000))
	}},
}

// sentOf is what the outbox says of a step about the order's objects.
func sentOf(step Step, o *orderpb.Order) Sent {
	s := Sent{Step: step}
	switch step {
	case Authorize:
		s.Amount = o.Total
	case Capture:
		s.Op, s.Amount = fulfillmentID, 235
	case Refund:
		s.Op, s.Amount = id.Sibling(id.Refund, returnID), 10
	case Void:
		s.Op = "void"
	}
	return s
}

// Every step × answer × state that it may find, and every word of an operator.
func TestEveryAnswerInEveryState(t *testing.T) {
	var got strings.Builder
	tell := func(tale *tale, events []*orderpb.Event) {
		for _, e := range events {
			fmt.Fprintf(&got, " %s", order.EventType(e))
			order.Fold(tale.o, e) // stops when the table does not allow it
		}
		if len(events) == 0 {
			got.WriteString(" –")
		}
	}
	for step := Reserve; step < stepCount; step++ {
		inventory := step != Authorize && step != Capture && step != Void && step != Refund
		for _, stand := range stands {
			for _, c := range outcomes {
				if inventory == (c.out.Payment != nil) || !inventory && c.name == "done" {
					continue // not an answer of that service
				}
				if step != Reserve && inventory && c.out.Refused != nil && c.out.Refused.Code != reject.HoldCanceled {
					continue // one refusal is like another
				}
				tale := stand.make()
				events, unexpected := Answer(tale.o, sentOf(step, tale.o), c.out, 2000)
				fmt.Fprintf(&got, "%-9s %-28s %-13s", stepLabel(step), stand.name, c.name)
				tell(tale, events)
				if unexpected != "" {
					fmt.Fprintf(&got, ", unexpected %s", unexpected)
				}
				got.WriteString("\n")
			}
			for _, done := range []bool{true, false} {
				tale := stand.make()
				fmt.Fprintf(&got, "%-9s %-28s operator: %-3s", stepLabel(step), stand.name, map[bool]string{true: "done", false: "skip"}[done])
				tell(tale, Resolve(tale.o, sentOf(step, tale.o), done, "seen", 2000))
				got.WriteString("\n")
			}
		}
	}
	golden.Compare(t, "testdata/answers.golden", got.String())
}

// stepLabel tells the two releases apart.
func stepLabel(s Step) string {
	if s == Trim {
		return "trim"
	}
	return s.String()
}

// Demands are summed per SKU over the whole order, one command for each shard, whichever way the sums are made.
func TestDemandsAreSummedPerSKU(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lines []*orderpb.Line
		want := map[string]int64{}
		first := map[string]uint32{}
		for i := range rapid.IntRange(1, 3*searchLines).Draw(t, "lines") {
			l := &orderpb.Line{
				Sku:      rapid.SampledFrom([]string{"a1", "a2", "a3", "b1", "b2", "c"}).Draw(t, "sku"),
				Quantity: rapid.Int64Range(1, 9).Draw(t, "quantity"), Untracked: rapid.IntRange(0, 5).Draw(t, "untracked") == 0,
			}
			lines = append(lines, l)
			if !l.Untracked {
				want[l.Sku] += l.Quantity
				first[l.Sku] = cmp.Or(first[l.Sku], uint32(i)+1)
			}
		}
		check := func(what string, sends []Send, step Step, demands func(*inventorypb.Command) []*inventorypb.Demand) {
			got, shards := map[string]int64{}, map[uint32]bool{}
			for _, s := range sends {
				if s.Step != step {
					continue
				}
				if shards[s.Leg] {
					t.Fatalf("%s: shard %d gets two commands", what, s.Leg)
				}
				shards[s.Leg] = true
				for _, d := range demands(s.Inventory) {
					if got[d.Sku] != 0 || shardOf(d.Sku) != s.Leg || d.Line != first[d.Sku] {
						t.Fatalf("%s: shard %d gets %v", what, s.Leg, d)
					}
					got[d.Sku] = d.Quantity
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%s: %v, want %v", what, got, want)
			}
		}
		tale := begin(lines...)
		check("reserve", tale.sends, Reserve, func(c *inventorypb.Command) []*inventorypb.Demand { return c.GetReserve().GetDemands() })
		tale.held()
		tale.sends = nil
		check("fulfill", tale.fulfill().sends, Fulfill, func(c *inventorypb.Command) []*inventorypb.Demand { return c.GetFulfill().GetDemands() })
	})
}

// FuzzRead looks at what no outbox holds.
func FuzzRead(f *testing.F) {
	for _, c := range tales {
		for _, s := range c.make().sends {
			to, payload := encodedSend(s)
			f.Add(byte(to), payload)
		}
	}
	o := twoLegs().o
	f.Add(byte(Keys), ClaimCommand(&orderpb.ClaimKey{Key: "k"}))
	f.Fuzz(func(t *testing.T, service byte, payload []byte) {
		to := Service(service % 3)
		sent, err := Read(o, to, 1, payload, shardOf)
		if err == nil && sent.Step >= stepCount {
			t.Errorf("Read = %+v", sent)
		}
		StepOf(to, payload)
	})
}

// An order is told of what needs no more than to be written down.
func TestHeard(t *testing.T) {
	for _, test := range []struct {
		name   string
		answer *paymentpb.ProviderAnswer
		want   bool
	}{
		{"not asked", nil, false},
		{"yes", &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "ch_1"}, true},
		{"yes, with the amount", &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "ch_1", Amount: 5}, true},
		{"yes to another amount", &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "ch_1", Amount: 4}, false},
		{"no", &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED}, false},
		{"not sent", &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_SENT}, false},
		{"no answer", &paymentpb.ProviderAnswer{}, false},
	} {
		got := Heard(&paymentpb.Authorize{OrderId: orderID, Amount: 5, Answer: test.answer}).GetAuthorized()
		if (got != nil) != test.want {
			t.Errorf("%s: the order is told %v", test.name, got)
		}
		if got != nil && (got.Id != orderID || got.Amount != 5 || got.ProviderReference != "ch_1") {
			t.Errorf("%s: the order is told %v", test.name, got)
		}
	}
}

// What an order has been told, and its payment refuses to record, is for a person to see.
func TestRefusedAuthorizationOfAPaidOrderIsUnexpected(t *testing.T) {
	late := Outcome{Refused: &reject.Rejection{Code: reject.MessageExpired, Detail: "late"}}
	for step, want := range map[orderpb.PaymentStep]string{
		orderpb.PaymentStep_PAYMENT_AUTHORIZED: "message_expired: late", orderpb.PaymentStep_PAYMENT_VOIDING: "",
	} {
		o := &orderpb.Order{Id: orderID, State: order.Confirmed, Payment: step}
		if events, unexpected := Answer(o, Sent{Step: Authorize}, late, 1000); len(events) > 0 || unexpected != want {
			t.Errorf("with payment %s: %v, unexpected %q, want %q", step, events, unexpected, want)
		}
	}
}

// What is reserved while an order is being placed is what its own reserves ask for, so that these recognize it.
func TestTentativeReservesAreTheOrdersOwn(t *testing.T) {
	place := func(lines ...*orderpb.Line) *orderpb.Place {
		return &orderpb.Place{Id: orderID, Currency: "EUR", Location: "north", Lines: lines}
	}
	encoded := func(c *orderpb.Command) []byte {
		payload, err := c.MarshalVT()
		if err != nil {
			t.Fatal(err)
		}
		return payload
	}
	line := func(sku string, quantity int64, untracked bool) *orderpb.Line {
		return &orderpb.Line{Sku: sku, Quantity: quantity, UnitPrice: 5, Untracked: untracked}
	}
	claimed := place(line("a1", 1, false))
	claimed.Claim = &orderpb.ClaimKey{Caller: "c", Key: "k", RequestHash: 7}
	for name, p := range map[string]*orderpb.Place{
		"with a key":            claimed,
		"two shards":            place(line("b1", 1, false), line("a1", 2, false), line("b1", 3, false), line("a2", 4, true)),
		"nothing to hold":       place(line("a1", 2, true)),
		"for nothing":           place(&orderpb.Line{Sku: "a1", Quantity: 1}),
		"going to be refused":   place(line("a1", 0, false)),
		"of nothing whatsoever": place(),
	} {
		id, sends := Tentative(encoded(&orderpb.Command{Body: &orderpb.Command_Place{Place: p}}), shardOf, 1000, 70)
		o := new(orderpb.Order)
		var want []Send
		if events, r := order.DecidePlace(p, shardOf, 2000); r == nil {
			order.Fold(o, events[0])
			want = slices.DeleteFunc(Follow(nil, o, events[0], 0, shardOf), func(s Send) bool { return s.Step != Reserve })
		}
		if p.Claim != nil {
			last := sends[len(sends)-1]
			if last.Step != Claim || !last.Key.EqualVT(p.Claim) {
				t.Errorf("%s: the last is %+v, want the claim", name, last)
			}
			sends = sends[:len(sends)-1]
		}
		if len(sends) != len(want) || len(sends) > 0 && id != orderID {
			t.Fatalf("%s: %d reserves of order %s, want %d", name, len(sends), id, len(want))
		}
		for i, s := range sends {
			got, own := s.Inventory.GetReserve(), want[i].Inventory.GetReserve()
			if got.Tentative != 70 || own.Tentative != 0 {
				t.Errorf("%s: %v is tentative for %d ms and the order's own for %d, want 70 and 0", name, got, got.Tentative, own.Tentative)
			}
			got.Tentative, own.Due, own.Expires = 0, 0, 0
			if s.Leg != want[i].Leg || !got.EqualVT(own) {
				t.Errorf("%s: shard %d is asked for %v, want shard %d for %v", name, s.Leg, got, want[i].Leg, own)
			}
		}
	}
	if _, sends := Tentative(encoded(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: orderID}}}), shardOf, 1000, 70); len(sends) != 0 {
		t.Errorf("a cancel reserves %v", sends)
	}
	if _, sends := Tentative([]byte{1 << 3, 0xff}, shardOf, 1000, 70); len(sends) != 0 {
		t.Errorf("garbage reserves %v", sends)
	}
}
