package payment

import (
	"fmt"
	"strings"
	"time"

	"hanse/api/paymentpb"
	"hanse/internal/reject"
)

// How long an operation waits before the provider is asked again.
const (
	firstPause = 100 * time.Millisecond
	// maxPause keeps the wait short after an outage of hours: doubling further would add hours of its own.
	maxPause = 30 * time.Second
	// An operation is stuck after this many calls, which take 2 minutes and the provider's own time, or at
	// the first failure this long after its request. It then goes on at stuckPause, and a person is told.
	stuckAttempts = 12
	stuckAfter    = 15 * time.Minute
	stuckPause    = 5 * time.Minute
)

// Answer takes the provider's answer to call.
func Answer(p *paymentpb.Payment, call *paymentpb.ProviderCall, a *paymentpb.ProviderAnswer, now int64) Step {
	op := find(p, call.Op)
	if op == nil || isFinished(op) || op.State == paymentpb.OpState_OP_PENDING {
		return Step{} // an operator was faster
	}
	s := Step{Op: op, Changed: true}
	from := Status(p)
	on := settle(p, op, call.Query, a, now, &s)
	stored(p, from, on, now)
	return s
}

// settle takes the provider's answer to the call of op that is under way, or to the question (query) what became of it, and returns what the
// answer was.
func settle(p *paymentpb.Payment, op *paymentpb.Op, query bool, a *paymentpb.ProviderAnswer, now int64, s *Step) Input {
	status, code := a.Status, a.Code
	if status == paymentpb.ProviderStatus_PROVIDER_SUCCEEDED && a.Amount != 0 && a.Amount != op.Amount {
		// Neither a success nor a failure of what was asked: somebody has to look.
		status, code = paymentpb.ProviderStatus_PROVIDER_UNKNOWN, fmt.Sprintf("amount_mismatch: asked for %d, the provider says %d", op.Amount, a.Amount)
	}
	switch {
	case status == paymentpb.ProviderStatus_PROVIDER_SUCCEEDED:
		finish(p, op, paymentpb.OpState_OP_SUCCEEDED, "", a.Reference, now, s)
		advance(p, now, s)
		return OnSucceeded
	case status == paymentpb.ProviderStatus_PROVIDER_DECLINED:
		if code == "" {
			code = "declined"
		}
		finish(p, op, paymentpb.OpState_OP_DECLINED, code, a.Reference, now, s)
		advance(p, now, s)
		return OnDeclined
	case status == paymentpb.ProviderStatus_PROVIDER_NOT_FOUND && query:
		// The request got lost on its way, or is still on it: the same key makes both harmless.
		// Resending at once is safe for the provider too, for the pause came before the question. That holds for a stuck
		// operation as well: with a pause here, an operator who tries again would only ask again, and put the sending off.
		failed(op, "not_found", now)
		send(p, op, false, 0, now, s)
		op.State = paymentpb.OpState_OP_SENT
		return OnNotFound
	case status == paymentpb.ProviderStatus_PROVIDER_NOT_SENT && !query:
		failed(op, code, now)
		send(p, op, false, now+pause(op), now, s)
		return OnNotSent
	}
	failed(op, code, now)
	ask(p, op, now+pause(op), now, s)
	return OnUnknown
}

// First returns what the provider is to be called with before the command is logged, and the command to log then, in which the answer is to be
// put; nil when there is nothing to be called first: payload is not an authorization that asks for it, or one that will be refused.
func First(payload []byte, now int64) (*paymentpb.ProviderCall, *paymentpb.Command) {
	var c paymentpb.Command
	if err := c.UnmarshalVT(payload); err != nil {
		return nil, nil
	}
	a := c.GetAuthorize()
	if !a.GetCallFirst() || !validID(a.PaymentId) || checkAuthorize(a) != nil || isLate(a, now) {
		return nil, nil
	}
	p := &paymentpb.Payment{Id: a.PaymentId}
	var s Step
	send(p, request(p, a, now), false, 0, now, &s)
	return s.Call, &c
}

// Again returns an authorization as it is sent once more. The payment may be on record now, and knows itself when the provider is to be called: that
// is not called first any more.
func Again(payload []byte) []byte {
	return changed(payload, func(c *paymentpb.Command) { c.GetAuthorize().CallFirst = false })
}

// Unsent returns a void as it is sent when the authorization that it takes back has never left: there is nothing to ask the provider.
func Unsent(payload []byte) []byte {
	return changed(payload, func(c *paymentpb.Command) { c.GetVoid().Authorize = nil })
}

// changed changes a command of ours.
func changed(payload []byte, change func(c *paymentpb.Command)) []byte {
	var c paymentpb.Command
	err := c.UnmarshalVT(payload)
	if err == nil {
		change(&c)
		payload, err = c.MarshalVT()
	}
	if err != nil {
		panic("payment: own command: " + err.Error())
	}
	return payload
}

// Undelivered notes that call could not be handed to the provider for long. The outbox goes on trying
// and tries next at nextTry.
func Undelivered(p *paymentpb.Payment, call *paymentpb.ProviderCall, cause string, nextTry, now int64) Step {
	op := find(p, call.Op)
	if op == nil || op.State != paymentpb.OpState_OP_SENT && op.State != paymentpb.OpState_OP_UNKNOWN {
		return Step{}
	}
	from := Status(p)
	op.Stuck, op.Code, op.NextTry = true, bounded(cause), nextTry
	stored(p, from, OnUndelivered, now)
	return Step{Op: op, Changed: true}
}

// failed notes a call without outcome.
func failed(op *paymentpb.Op, code string, now int64) {
	if code == "" {
		code = "unknown"
	}
	op.Code = bounded(code)
	if op.Attempts >= stuckAttempts || now-op.CreatedAt >= stuckAfter.Milliseconds() {
		op.Stuck = true
	}
}

// pause returns how long to wait, in milliseconds, after op.Attempts calls without outcome.
func pause(op *paymentpb.Op) int64 {
	if op.Stuck {
		return stuckPause.Milliseconds()
	}
	n := min(max(op.Attempts, 1)-1, 20) // far beyond maxPause, far below an overflow
	return min(firstPause<<n, maxPause).Milliseconds()
}

// advance sends the next operation, if none is under way. Those with nothing to do are finished on the way.
func advance(p *paymentpb.Payment, now int64, s *Step) {
	for _, op := range p.Ops {
		switch op.State {
		case paymentpb.OpState_OP_SENT, paymentpb.OpState_OP_UNKNOWN:
			return
		case paymentpb.OpState_OP_PENDING:
			rest := room(p, op.Kind)
			if op.Kind == paymentpb.OpKind_VOID {
				// Only now is it known what the operations before it left.
				if op.Amount = rest; rest == 0 {
					finish(p, op, paymentpb.OpState_OP_SUCCEEDED, "", "", now, s)
					continue
				}
			}
			if op.Amount > rest {
				// An operation it counted on was declined: the provider would refuse it, or worse, not refuse it.
				finish(p, op, paymentpb.OpState_OP_CANCELED, reject.PaymentState, "", now, s)
				continue
			}
			op.State = paymentpb.OpState_OP_SENT
			send(p, op, false, 0, now, s)
			return
		}
	}
}

// room returns how much an operation of the kind may move now.
func room(p *paymentpb.Payment, kind paymentpb.OpKind) int64 {
	switch kind {
	case paymentpb.OpKind_AUTHORIZE:
		return p.Requested - p.Authorized
	case paymentpb.OpKind_REFUND:
		return p.Captured - p.Refunded
	}
	return p.Authorized - p.Captured - p.Voided
}

// finish gives op its final state, and the payment what it moved.
func finish(p *paymentpb.Payment, op *paymentpb.Op, state paymentpb.OpState, code, reference string, now int64, s *Step) {
	op.State, op.Code, op.ProviderReference = state, bounded(code), bounded(reference)
	op.FinishedAt, op.NextTry, op.Stuck = now, 0, false
	s.Settled = append(s.Settled, Key(p.Id, op.Id))
	if state != paymentpb.OpState_OP_SUCCEEDED {
		return
	}
	switch op.Kind {
	case paymentpb.OpKind_AUTHORIZE:
		p.Authorized += op.Amount
		p.ProviderReference = op.ProviderReference
	case paymentpb.OpKind_CAPTURE:
		p.Captured += op.Amount
	case paymentpb.OpKind_VOID:
		p.Voided += op.Amount
	case paymentpb.OpKind_REFUND:
		p.Refunded += op.Amount
	}
}

// ask sends the question what became of op's key.
func ask(p *paymentpb.Payment, op *paymentpb.Op, at, now int64, s *Step) {
	op.State = paymentpb.OpState_OP_UNKNOWN
	send(p, op, true, at, now, s)
}

// send puts a call for op into s, to go out at the time at, 0 for at once. The key is always the same.
func send(p *paymentpb.Payment, op *paymentpb.Op, query bool, at, now int64, s *Step) {
	op.Attempts++
	op.NextTry = max(at, now)
	s.NotBefore = at
	s.Call = &paymentpb.ProviderCall{
		PaymentId: p.Id, Op: op.Id, Kind: op.Kind, Amount: op.Amount, Currency: p.Currency, Method: p.Method,
		Key: Key(p.Id, op.Id), Query: query, Authorization: p.ProviderReference, OrderId: p.OrderId, Attempt: op.Attempts,
	}
}

// bounded makes of a text from outside what is stored: not too long, and valid where it was cut or came broken.
func bounded(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxTextBytes)], "")
}
