package ordershard_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/id"
	"hanse/internal/order"
	"hanse/internal/payment"
	"hanse/internal/reactor"
	"hanse/internal/reject"
	"hanse/internal/shard"
	"hanse/internal/slot"
)

// resolve settles an order's only stuck step, as nodes do at the newest level of features.
func (s *shop) resolve(orderID, decision string) shard.Result {
	s.tb.Helper()
	o := s.find(orderID)
	if len(o.Stuck) != 1 {
		s.tb.Fatalf("%s has %d stuck steps, want one", summary(o), len(o.Stuck))
	}
	return s.settle(orderID, o.Stuck[0].Seq, decision)
}

func (s *shop) settle(orderID string, seq uint64, decision string) shard.Result {
	return s.order(&orderpb.Command{Body: &orderpb.Command_ResolveStep{ResolveStep: &orderpb.ResolveStep{
		Id: orderID, Seq: seq, Decision: decision, Evidence: "cash", Operator: "kim", TellPayment: true,
	}}})
}

func (s *shop) fulfill(orderID string, items ...*orderpb.Item) {
	s.tb.Helper()
	if r := s.order(&orderpb.Command{Body: &orderpb.Command_Fulfill{Fulfill: &orderpb.Fulfill{
		Id: orderID, FulfillmentId: s.newID(id.Fulfillment), Items: items,
	}}}); !r.OK() {
		s.tb.Fatalf("fulfill: %+v", r)
	}
}

func (s *shop) cancel(orderID string) {
	s.tb.Helper()
	if r := s.order(&orderpb.Command{Body: &orderpb.Command_Cancel{Cancel: &orderpb.Cancel{Id: orderID}}}); !r.OK() {
		s.tb.Fatalf("cancel: %+v", r)
	}
}

// payment returns an order's payment, nil when there is none.
func (s *shop) payment(orderID string) *paymentpb.Payment {
	p := new(paymentpb.Payment)
	q, _ := (&paymentpb.Query{Body: &paymentpb.Query_Find{Find: &paymentpb.FindPayment{Id: id.Sibling(id.Payment, orderID)}}}).MarshalVT()
	r := s.machines[s.layout.Shard(shard.Payment, slot.Slot(7))].Query(q)
	if r.Code == reject.PaymentNotFound {
		return nil
	}
	if err := p.UnmarshalVT(r.Payload); err != nil || !r.OK() {
		s.tb.Fatalf("payment of %s: %+v", orderID, r)
	}
	return p
}

// impatient lets time go by in which the order's shard does not wait for a payment to settle for longer than a minute.
func (s *shop) impatient(minutes int) {
	for range minutes {
		for _, key := range slices.Sorted(maps.Keys(s.waiting)) {
			ds := s.waiting[key]
			delete(s.waiting, key)
			for _, d := range ds {
				s.answer(d, shard.Result{Pending: key}, nil)
			}
		}
		s.pass(60_000)
	}
}

// books says what an order and its payment have in their books, which has to be the same.
func (s *shop) books(orderID string) string {
	s.tb.Helper()
	o, p := s.find(orderID), s.payment(orderID)
	if o.Refunded > o.Captured || o.Captured+o.Voided > o.Authorized || o.Authorized > o.Total {
		s.tb.Errorf("%s: authorized %d, captured %d, voided %d, refunded %d do not add up", summary(o), o.Authorized, o.Captured, o.Voided, o.Refunded)
	}
	if got := [4]int64{p.GetAuthorized(), p.GetCaptured(), p.GetVoided(), p.GetRefunded()}; got != [4]int64{o.Authorized, o.Captured, o.Voided, o.Refunded} {
		s.tb.Errorf("%s: the payment has authorized, captured, voided, refunded %d; the order %d", summary(o), got, [4]int64{o.Authorized, o.Captured, o.Voided, o.Refunded})
	}
	return fmt.Sprintf("authorized %d, captured %d, voided %d, refunded %d", o.Authorized, o.Captured, o.Voided, o.Refunded)
}

// declining declines operations of some kinds.
func declining(kinds ...paymentpb.OpKind) func(*paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
	return func(c *paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
		for _, k := range kinds {
			if c.Kind == k {
				return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "no"}
			}
		}
		return accept(c)
	}
}

// Found by an operator: the customer has paid in cash what the provider would not charge. The order counted that, the payment did not, and the
// void of the rest gave back all of the authorization: an order of 200 had authorized 300.
func TestCapture_that_was_done_outside_leaves_the_books_right(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	o := s.place(line("A", 2, 100))
	s.provider = declining(paymentpb.OpKind_CAPTURE)
	s.fulfill(o, &orderpb.Item{Line: 1, Quantity: 1})
	s.want(o, order.OnHold, nil)
	if r := s.resolve(o, order.DecisionDone); !r.OK() {
		t.Fatalf("resolve: %+v", r)
	}
	s.want(o, order.PartiallyFulfilled, nil)
	if got, want := s.books(o), "authorized 200, captured 100, voided 0, refunded 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	s.cancel(o)
	s.want(o, order.Fulfilled, nil)
	if got, want := s.books(o), "authorized 200, captured 100, voided 100, refunded 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	// A return is refunded through the provider, for it may have charged after all.
	if r := s.order(&orderpb.Command{Body: &orderpb.Command_ReturnItems{ReturnItems: &orderpb.ReturnItems{
		Id: o, ReturnId: s.newID(id.Return), Items: []*orderpb.Item{{Line: 1, Quantity: 1}},
	}}}); !r.OK() {
		t.Fatalf("return: %+v", r)
	}
	if got := s.find(o); len(got.Stuck) != 0 || got.Refunded != 100 {
		t.Errorf("refunded %d, stuck %v; want 100 and nothing", got.Refunded, got.Stuck)
	}
	s.books(o)
	for _, op := range s.payment(o).Ops {
		if op.Kind == paymentpb.OpKind_CAPTURE && op.State == paymentpb.OpState_OP_SUCCEEDED && (!payment.IsResolved(op.Code) || op.ProviderReference != "cash") {
			t.Errorf("the payment does not say who has decided: %v", op)
		}
	}
	s.check()
	s.restart()
}

// A capture of the whole is done outside: nothing is left to void, for that was what is authorized.
func TestCapture_of_everything_that_was_done_outside(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	o := s.place(line("A", 2, 100))
	s.provider = declining(paymentpb.OpKind_CAPTURE)
	s.fulfill(o)
	s.resolve(o, order.DecisionDone)
	if got := s.want(o, order.Fulfilled, nil); order.Open(got) {
		t.Errorf("%s is open", summary(got))
	}
	if got, want := s.books(o), "authorized 200, captured 200, voided 0, refunded 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRefund_that_was_done_outside_leaves_the_books_right(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	o := s.place(line("A", 2, 100))
	s.fulfill(o)
	s.provider = declining(paymentpb.OpKind_REFUND)
	s.order(&orderpb.Command{Body: &orderpb.Command_RefundAmount{RefundAmount: &orderpb.RefundAmount{Id: o, RefundId: s.newID(id.Refund), Amount: 150}}})
	if r := s.resolve(o, order.DecisionDone); !r.OK() {
		t.Fatalf("resolve: %+v", r)
	}
	if got, want := s.books(o), "authorized 200, captured 200, voided 0, refunded 150"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got := s.find(o); order.Open(got) {
		t.Errorf("%s is open", summary(got))
	}
}

// What has not been captured cannot have been refunded: the capture is settled first.
func TestRefund_is_not_done_before_what_it_counts_on(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	o := s.place(line("A", 2, 100))
	s.fulfill(o, &orderpb.Item{Line: 1, Quantity: 1})
	s.lost = func(d reactor.Delivery) bool { return d.Message.To.Service() == shard.Payment }
	s.fulfill(o, &orderpb.Item{Line: 1, Quantity: 1})
	s.order(&orderpb.Command{Body: &orderpb.Command_RefundAmount{RefundAmount: &orderpb.RefundAmount{Id: o, RefundId: s.newID(id.Refund), Amount: 200}}})
	s.pass(60 * 60_000)
	s.lost = nil
	s.provider = declining(paymentpb.OpKind_CAPTURE)
	s.pass(10 * 60_000) // the capture is declined, and the refund has too little to count on
	steps := map[string]uint64{}
	for _, step := range s.find(o).Stuck {
		steps[step.Step] = step.Seq
	}
	if steps[order.StepCapture] == 0 || steps[order.StepRefund] == 0 {
		t.Fatalf("stuck: %v, want a capture and a refund", s.find(o).Stuck)
	}
	if r := s.settle(o, steps[order.StepRefund], order.DecisionDone); r.Code != reject.OrderState {
		t.Errorf("refund first: %+v, want it refused", r)
	}
	if r := s.settle(o, steps[order.StepCapture], order.DecisionDone); !r.OK() {
		t.Errorf("capture: %+v", r)
	}
	if r := s.settle(o, steps[order.StepRefund], order.DecisionDone); !r.OK() {
		t.Errorf("then the refund: %+v", r)
	}
	if got, want := s.books(o), "authorized 200, captured 200, voided 0, refunded 200"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestVoid_that_was_done_outside_leaves_the_books_right(t *testing.T) {
	for _, answers := range []bool{true, false} { // of the authorization
		t.Run(fmt.Sprintf("the authorization was answered: %v", answers), func(t *testing.T) {
			s := newShop(t)
			s.receive("A", 10)
			s.provider = func(c *paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
				if answers {
					return declining(paymentpb.OpKind_VOID)(c)
				}
				return &paymentpb.ProviderAnswer{}
			}
			o := s.place(line("A", 2, 100))
			s.cancel(o)
			s.impatient(60)
			if !answers { // the void leaves when it is known what became of that
				s.resolve(o, order.DecisionDone)
				s.impatient(60)
			}
			if r := s.resolve(o, order.DecisionDone); !r.OK() {
				t.Fatalf("resolve: %+v", r)
			}
			s.want(o, order.Canceled, map[string]int64{"A": 10})
			if got, want := s.books(o), "authorized 200, captured 0, voided 200, refunded 0"; got != want {
				t.Errorf("%s, want %s", got, want)
			}
			s.pass(60 * 60_000)
			s.books(o)
			if n := s.payments(); n != 0 {
				t.Errorf("%d messages for payments are left", n)
			}
		})
	}
}

// An authorization that an operator has seen at the provider is on record at the payment, so that it can be captured.
func TestAuthorization_that_was_done_outside_can_be_captured(t *testing.T) {
	s := newShop(t)
	s.receive("A", 10)
	s.provider = func(*paymentpb.ProviderCall) *paymentpb.ProviderAnswer { return &paymentpb.ProviderAnswer{} }
	o := s.place(line("A", 2, 100))
	s.impatient(14)
	if r := s.resolve(o, order.DecisionDone); !r.OK() {
		t.Fatalf("resolve: %+v", r)
	}
	s.provider = accept
	s.want(o, order.Confirmed, nil)
	s.fulfill(o)
	s.want(o, order.Fulfilled, nil)
	if got, want := s.books(o), "authorized 200, captured 200, voided 0, refunded 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
