package rest

import (
	"fmt"
	"slices"
	"strconv"

	"hanse/api/orderpb"
	"hanse/internal/money"
	"hanse/internal/order"
)

func eventType(ev *orderpb.Event) string { return order.EventType(ev) }

func uintString(n uint64) string { return strconv.FormatUint(n, 10) }

// summary tells in a sentence where an order stands.
func summary(o *orderpb.Order) string {
	s := fmt.Sprintf("Order of %s worth %s is %s", count(len(o.Lines), "line"), money.Text(o.Total, o.Currency), order.StateName(o.State))
	if o.Reason != "" {
		s += because(o.Reason)
	}
	s += fmt.Sprintf("; payment %s, fulfillment %s, returns %s.", order.PaymentStatus(o), order.FulfillmentStatus(o), order.ReturnStatus(o))
	if len(o.Stuck) > 0 {
		s += fmt.Sprintf(" %s stuck: a person has to look.", count(len(o.Stuck), "step"))
	}
	return s
}

const (
	provider   = "answer of the payment provider"
	anOperator = "an operator"
	stepVoid   = "void" // as package saga calls it
)

// narrator tells an order's events one after the other. Some of them are to be understood only from those before.
type narrator struct {
	currency string
	// stuck has the steps that are or were stuck, by number, and said what operators have said to be done of them, until the order has it too.
	stuck map[uint64]*orderpb.StuckStep
	said  []said
	last  order.Kind
}

// said is an operator's word that a step has been done.
type said struct {
	step *orderpb.StuckStep
	who  string
}

func newNarrator(currency string) *narrator {
	return &narrator{currency: currency, stuck: make(map[uint64]*orderpb.StuckStep)}
}

// tell tells the next event: who or what made it happen, and what that was.
func (n *narrator) tell(ev *orderpb.Event) (cause, text string) {
	cause, text = n.sentence(ev)
	if s := ev.GetStepStuck().GetStep(); s != nil {
		n.stuck[s.GetSeq()] = s
	}
	n.last = order.KindOf(ev)
	return cause, text
}

// whoSettled says who settled a stuck step. Operators always give evidence, but for a retry; the saga settles what has healed, and what
// it has just sent once more.
func (n *narrator) whoSettled(r *orderpb.StepResolved) string {
	switch {
	case r.GetOperator() == "" && r.GetEvidence() == "" && (r.GetDecision() == order.DecisionDone || n.last == order.KindStepStuck):
		return "the order's saga"
	case r.GetDecision() == order.DecisionDone:
		if step := n.stuck[r.GetSeq()]; step != nil {
			n.said = append(n.said, said{step, operator(r.GetOperator())})
		}
	}
	return operator(r.GetOperator())
}

func (n *narrator) money(minor int64) string { return money.Text(minor, n.currency) }

func operator(name string) string {
	if name == "" {
		return anOperator
	}
	return "operator " + name
}

// whoMoved says who made money move: the provider, or an operator who has said that it was done. How much a void gives back is known to the payment only.
func (n *narrator) whoMoved(step string, amount int64) string {
	i := slices.IndexFunc(n.said, func(s said) bool {
		return s.step.GetStep() == step && (step == stepVoid || s.step.GetAmount() == amount)
	})
	if i < 0 {
		return provider
	}
	who := n.said[i].who
	n.said = slices.Delete(n.said, i, i+1)
	return "the word of " + who
}

// sentence tells an event in words, and who or what made it happen.
func (n *narrator) sentence(ev *orderpb.Event) (cause, text string) {
	const api, stock, saga = "API request", "answer of inventory", "the order's saga"
	switch d := ev.Detail.(type) {
	case *orderpb.Event_Placed:
		o := d.Placed.GetOrder()
		return api, fmt.Sprintf("The order was placed: %s worth %s. Its stock is being reserved.", count(len(o.GetLines()), "line"), n.money(o.GetTotal()))
	case *orderpb.Event_StockReserved:
		return stock, fmt.Sprintf("Shard %s holds its part of the stock.", inventoryShard(d.StockReserved.GetShard()))
	case *orderpb.Event_StockRefused:
		return stock, fmt.Sprintf("Shard %s refused to hold the stock (%s): %s", inventoryShard(d.StockRefused.GetShard()), d.StockRefused.GetCode(), d.StockRefused.GetText())
	case *orderpb.Event_KeyRefused:
		return "the keeper of its idempotency key", "The key under which the order was placed is another request's (" + d.KeyRefused.GetCode() + "). What was done is being undone."
	case *orderpb.Event_PaymentAuthorized:
		return n.whoMoved(order.StepAuthorize, d.PaymentAuthorized.GetAmount()), fmt.Sprintf("The payment of %s was authorized.", n.money(d.PaymentAuthorized.GetAmount()))
	case *orderpb.Event_PaymentDeclined:
		return provider, fmt.Sprintf("The payment was declined (%s).", d.PaymentDeclined.GetCode())
	case *orderpb.Event_Confirmed:
		return saga, "The order was confirmed: from here it only goes forward."
	case *orderpb.Event_CancelRequested:
		return api, "A cancel was asked for" + because(d.CancelRequested.GetReason()) + ". What was done is being undone."
	case *orderpb.Event_ExpireRequested:
		return "a deadline", "The order ran out of time" + because(d.ExpireRequested.GetReason()) + ". What was done is being undone."
	case *orderpb.Event_StockReleased:
		return stock, fmt.Sprintf("Shard %s has released its part of the stock.", inventoryShard(d.StockReleased.GetShard()))
	case *orderpb.Event_PaymentVoided:
		return n.whoMoved(stepVoid, d.PaymentVoided.GetAmount()), fmt.Sprintf("The authorization was voided; %s are free again.", n.money(d.PaymentVoided.GetAmount()))
	case *orderpb.Event_Ended:
		return saga, fmt.Sprintf("Everything is undone: the order is %s.", order.StateName(d.Ended.GetState()))
	case *orderpb.Event_Fulfilled:
		f := d.Fulfilled.GetFulfillment()
		return api, fmt.Sprintf("%s sent with fulfillment %s; %s are to be charged.", count(units(f.GetItems()), "unit"), f.GetId(), n.money(f.GetAmount()))
	case *orderpb.Event_PaymentCaptured:
		return n.whoMoved(order.StepCapture, d.PaymentCaptured.GetAmount()), fmt.Sprintf("%s were charged for fulfillment %s.", n.money(d.PaymentCaptured.GetAmount()), d.PaymentCaptured.GetFulfillmentId())
	case *orderpb.Event_CaptureFailed:
		if d.CaptureFailed.GetCode() == order.GivenUp {
			return anOperator, fmt.Sprintf("Charging for fulfillment %s was given up: nobody pays for it.", d.CaptureFailed.GetFulfillmentId())
		}
		return provider, fmt.Sprintf("Charging for fulfillment %s failed for good (%s). The order waits for a person.", d.CaptureFailed.GetFulfillmentId(), d.CaptureFailed.GetCode())
	case *orderpb.Event_Returned:
		r := d.Returned.GetReturn()
		return api, fmt.Sprintf("%s came back (%s) with return %s; %s are to be refunded.", count(units(r.GetItems()), "unit"), nameOf(dispositions, r.GetDisposition()), r.GetId(), n.money(r.GetAmount()))
	case *orderpb.Event_RefundRequested:
		r := d.RefundRequested.GetRefund()
		return api, fmt.Sprintf("A refund of %s was asked for%s.", n.money(r.GetAmount()), because(r.GetReason()))
	case *orderpb.Event_PaymentRefunded:
		return n.whoMoved(order.StepRefund, d.PaymentRefunded.GetAmount()), fmt.Sprintf("%s were refunded (%s).", n.money(d.PaymentRefunded.GetAmount()), d.PaymentRefunded.GetRefundId())
	case *orderpb.Event_RefundFailed:
		if d.RefundFailed.GetCode() == order.GivenUp {
			return anOperator, fmt.Sprintf("Refund %s was given up: it is not paid out.", d.RefundFailed.GetRefundId())
		}
		return provider, fmt.Sprintf("Refund %s failed for good (%s). A person has to look.", d.RefundFailed.GetRefundId(), d.RefundFailed.GetCode())
	case *orderpb.Event_StepStuck:
		s := d.StepStuck.GetStep()
		return saga, fmt.Sprintf("Step %q is stuck after %s: %s", s.GetStep(), count(int(s.GetAttempts()), "attempt"), s.GetCause())
	case *orderpb.Event_StepResolved:
		return n.whoSettled(d.StepResolved), fmt.Sprintf("Stuck step %d was settled: %s%s.", d.StepResolved.GetSeq(), d.StepResolved.GetDecision(), because(d.StepResolved.GetEvidence()))
	case *orderpb.Event_RemainderCanceled:
		return api, fmt.Sprintf("%s not yet sent were canceled%s.", count(units(d.RemainderCanceled.GetItems()), "unit"), because(d.RemainderCanceled.GetReason()))
	}
	return "unknown", "An event of a later version of Hanse."
}
