package ordershard_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/id"
	"hanse/internal/order"
	"hanse/internal/payment"
	"hanse/internal/reactor"
)

// moody is a provider that remembers what it has done, and lets its mood decide what it says.
type moody struct {
	rng    *rand.Rand
	ledger map[string]*paymentpb.ProviderAnswer
	calls  map[string]*paymentpb.ProviderCall
	fair   bool
}

// newFair makes one whose mood is always good.
func newFair() *moody {
	return &moody{fair: true, ledger: make(map[string]*paymentpb.ProviderAnswer), calls: make(map[string]*paymentpb.ProviderCall)}
}

func (p *moody) answer(c *paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
	if a, ok := p.ledger[c.Key]; ok {
		return a
	}
	if c.Query {
		return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_FOUND}
	}
	unknown := &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_UNKNOWN}
	mood := 7
	if !p.fair {
		mood = p.rng.IntN(8)
	}
	switch mood {
	case 0: // lost on the way
		return unknown
	case 1:
		p.ledger[c.Key] = &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "no"}
		return p.ledger[c.Key]
	}
	p.ledger[c.Key], p.calls[c.Key] = accept(c), c
	if mood == 2 { // carried out, and the answer lost
		return unknown
	}
	return p.ledger[c.Key]
}

// money is what the provider has moved for a payment.
func (p *moody) money(paymentID string) (authorized, captured, voided, refunded int64) {
	for _, c := range p.calls {
		if c.PaymentId != paymentID {
			continue
		}
		switch c.Kind {
		case paymentpb.OpKind_AUTHORIZE:
			authorized += c.Amount
		case paymentpb.OpKind_CAPTURE:
			captured += c.Amount
		case paymentpb.OpKind_VOID:
			voided += c.Amount
		case paymentpb.OpKind_REFUND:
			refunded += c.Amount
		}
	}
	return authorized, captured, voided, refunded
}

// Random shops: callers do what they like, deliveries get lost, the provider declines and does not answer, machines are
// restarted. Then all is well again, an operator has stuck steps sent again, and everything has to come to rest: each order at an
// end or forward, the provider's ledger as the orders say, and the stock too.
func TestRandomShopsComeToRest(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		playRandomShop(t, rt, seed)
	})
}

func playRandomShop(t *testing.T, rt *rapid.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	s := newShop(t)
	psp := newFair()
	psp.rng, psp.fair = rng, false
	s.provider = psp.answer
	skus := []string{"A", "B", "C"}
	const stock = 20
	for _, sku := range skus {
		s.receive(sku, stock)
	}
	loss := rng.IntN(3) // 0: none
	s.lost = func(reactor.Delivery) bool { return loss > 0 && rng.IntN(4) < loss }
	s.failed = func(reactor.Proposal) bool { return loss > 0 && rng.IntN(8) < loss }
	s.dies = func() bool { return loss > 0 && rng.IntN(6) < loss }
	s.deaf = func() bool { return rng.IntN(4) == 0 }
	var placed []string
	any := func() string { return placed[rng.IntN(len(placed))] }
	items := func(o *orderpb.Order) []*orderpb.Item {
		return []*orderpb.Item{{Line: uint32(rng.IntN(len(o.Lines))) + 1, Quantity: int64(rng.IntN(2)) + 1}}
	}
	for range 5 + rng.IntN(25) {
		switch n := rng.IntN(10); {
		case n < 3 || len(placed) == 0:
			var lines []*orderpb.Line
			for range rng.IntN(3) + 1 {
				lines = append(lines, line(skus[rng.IntN(3)], int64(rng.IntN(5))+1, int64(rng.IntN(3))*100))
			}
			s.level = []uint32{3, 3, 2, 1}[rng.IntN(4)]
			placed = append(placed, s.place(lines...))
		case n == 3:
			s.order(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: any()}}})
		case n == 4 || n == 5:
			o := s.find(any())
			c := &orderpb.Fulfill{Id: o.Id, FulfillmentId: s.newID(id.Fulfillment)}
			if rng.IntN(2) == 0 {
				c.Items = items(o)
			}
			s.order(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: c}})
		case n == 6:
			o := s.find(any())
			s.order(&orderpb.Command{Body: &orderpb.Command_ReturnItems{ReturnItems: &orderpb.ReturnItems{
				Id: o.Id, ReturnId: s.newID(id.Return), Items: items(o), NoRefund: rng.IntN(2) == 0,
			}}})
		case n == 7:
			s.order(&orderpb.Command{Body: &orderpb.Command_RefundAmount{RefundAmount: &orderpb.RefundAmount{
				Id: any(), RefundId: s.newID(id.Refund), Amount: int64(rng.IntN(200)),
			}}})
		case n == 8 && rng.IntN(2) == 0:
			s.restart()
		case n == 8:
			s.settleOne(rng)
		default:
			if s.pass([]int64{10, 1000, 60_000, 1_000_000}[rng.IntN(4)]); rng.IntN(2) == 0 {
				s.impatient(14)
			}
		}
		s.followed(rt)
	}
	// All is well again.
	loss, psp.fair = 0, true
	for range 6 {
		s.pass((30 * time.Minute).Milliseconds())
		for _, o := range s.sagas(true) {
			for _, step := range o.Stuck {
				s.order(&orderpb.Command{Body: &orderpb.Command_RetryStep{RetryStep: &orderpb.RetryStep{Id: o.Id, Seq: step.Seq, Operator: "kim"}}})
			}
		}
	}
	s.pass((6 * time.Hour).Milliseconds())
	s.check()
	left := map[string]int64{}
	for _, orderID := range placed {
		o := s.find(orderID)
		if order.Open(o) {
			rt.Errorf("%s does not come to rest: %s", orderID, summary(o))
		}
		authorized, captured, voided, refunded := psp.money(o.PaymentId)
		s.books(orderID)
		if s.byWord(orderID) { // what an operator has settled need not be what the provider has done
			captured, voided, refunded = o.Captured, o.Voided, o.Refunded
			authorized = voided
		}
		if order.Ended(o.State) && authorized != voided || captured != o.Captured || refunded != o.Refunded || voided != o.Voided {
			rt.Errorf("%s: the provider says authorized %d, captured %d, voided %d, refunded %d; the order %s", orderID, authorized, captured, voided, refunded, summary(o))
		}
		for _, l := range o.Lines {
			left[l.Sku] += l.Fulfilled - l.Returned
			if !order.Ended(o.State) {
				left["kept "+l.Sku] += l.Quantity - l.Canceled - l.Fulfilled
			}
		}
	}
	for _, sku := range skus {
		i := s.item(sku)
		if i.OnHand != stock-left[sku] || i.Allocated != left["kept "+sku] || i.Reserved != 0 {
			rt.Errorf("%s: on hand %d, allocated %d, reserved %d; want %d, %d, 0", sku, i.OnHand, i.Allocated, i.Reserved, stock-left[sku], left["kept "+sku])
		}
	}
	for sid, m := range s.machines {
		if n := len(m.Outbox()); n > 0 {
			rt.Errorf("%s has %d messages that nobody takes: %v", sid, n, m.Outbox())
		}
	}
	s.restart()
}

// settleOne has an operator say of a stuck step about money that it has been done.
func (s *shop) settleOne(rng *rand.Rand) {
	stuck := s.sagas(true)
	if len(stuck) == 0 {
		return
	}
	o := stuck[rng.IntN(len(stuck))]
	step := o.Stuck[rng.IntN(len(o.Stuck))]
	switch step.Step {
	case order.StepAuthorize, order.StepCapture, order.StepRefund, "void":
		decision := order.DecisionDone
		if rng.IntN(2) == 0 && step.Step != "void" { // a void that is given up leaves money that is nobody's
			decision = order.DecisionSkip
		}
		s.settle(o.Id, step.Seq, decision)
	}
}

// byWord says whether an operation of an order's payment has ended by an operator's word.
func (s *shop) byWord(orderID string) bool {
	return slices.ContainsFunc(s.payment(orderID).GetOps(), func(op *paymentpb.Op) bool { return payment.IsResolved(op.Code) })
}

// followed checks that the lists of open and stuck orders miss nothing.
func (s *shop) followed(t interface{ Errorf(string, ...any) }) {
	listed := map[string]bool{}
	for _, o := range s.sagas(false) {
		listed[o.Id] = true
	}
	for _, o := range s.sagas(true) {
		listed["stuck "+o.Id] = true
	}
	for _, o := range s.scan().Orders {
		if open := order.Open(o.Stored); open != listed[o.Stored.Id] {
			t.Errorf("%s is open: %v, and listed: %v", summary(o.Stored), open, listed[o.Stored.Id])
		}
		if stuck := len(o.Stored.Stuck) > 0; stuck != listed["stuck "+o.Stored.Id] {
			t.Errorf("%s is stuck: %v, and listed: %v", summary(o.Stored), stuck, listed["stuck "+o.Stored.Id])
		}
	}
}

func (s *shop) sagas(stuck bool) []*orderpb.Order {
	q, _ := (&orderpb.Query{Body: &orderpb.Query_Sagas{Sagas: &orderpb.ListSagas{Stuck: stuck, Limit: 1000}}}).MarshalVT()
	var list orderpb.OrderList
	if err := list.UnmarshalVT(s.machines[orders].Query(q).Payload); err != nil {
		s.tb.Fatal(err)
	}
	return list.Orders
}

func (s *shop) scan() *orderpb.OrderScan {
	q, _ := (&orderpb.Query{Body: &orderpb.Query_Scan{Scan: &orderpb.ScanOrders{Limit: 1000}}}).MarshalVT()
	scan := new(orderpb.OrderScan)
	if err := scan.UnmarshalVT(s.machines[orders].Query(q).Payload); err != nil {
		s.tb.Fatal(err)
	}
	return scan
}
