package payment

import (
	"hanse/api/paymentpb"
)

// shop is a payment and what is under way for it: the call that the outbox holds, if any.
type shop struct {
	p      *paymentpb.Payment
	call   *paymentpb.ProviderCall
	paused bool // the call waits for its time
}

// noon is when everything happens in an exploration: only the order matters.
const noon = 1_000

func (s shop) clone() shop {
	s.p, s.call = s.p.CloneVT(), s.call.CloneVT()
	return s
}

// key tells shops apart by what decisions look at, and nothing else.
func (s shop) key() string {
	b := make([]byte, 0, 64)
	bit := func(set bool) {
		if set {
			b = append(b, '+')
		} else {
			b = append(b, '-')
		}
	}
	bit(s.paused)
	if p := s.p; p != nil {
		b = append(b, byte(p.Requested), byte(p.Authorized), byte(p.Captured), byte(p.Voided), byte(p.Refunded))
		bit(p.VoidRequested)
		for _, op := range p.Ops {
			b = append(append(b, op.Id...), byte(op.State), byte(op.Amount))
			bit(op.Stuck)
		}
	}
	if s.call != nil {
		b = append(append(b, '/'), s.call.Op...)
		bit(s.call.Query)
	}
	return string(b)
}

// take does to the shop what a shard does with a step.
func (s *shop) take(step Step) {
	if step.Recall {
		s.call, s.paused = nil, false
	}
	if step.Call != nil {
		s.call, s.paused = step.Call, step.NotBefore > noon
	}
}

func (s *shop) decide(c *paymentpb.Command) (step Step) {
	s.p, step = Decide(s.p, c, noon)
	s.take(step)
	return step
}

func (s *shop) answer(a *paymentpb.ProviderAnswer) (step Step) {
	call := s.call
	s.call, s.paused = nil, false
	step = Answer(s.p, call, a, noon)
	s.take(step)
	return step
}

// input is something that may happen to a payment.
type input struct {
	name string
	on   Input
	can  func(s shop) bool // nil for always
	do   func(s *shop) Step
	leaf bool // what it leads to is not explored further
}

func commanded(name string, on Input, c *paymentpb.Command) input {
	return input{name: name, on: on, do: func(s *shop) Step { return s.decide(c) }}
}

func called(s shop) bool { return s.call != nil }

func answered(name string, on Input, a *paymentpb.ProviderAnswer, can func(s shop) bool) input {
	return input{name: name, on: on, can: can, do: func(s *shop) Step { return s.answer(a.CloneVT()) }}
}

// voidInDoubt says that a void may fail, or has: the only reason for a second one.
func voidInDoubt(s shop) bool {
	op := find(s.p, VoidOp)
	return op != nil && op.State != paymentpb.OpState_OP_SUCCEEDED && op.State != paymentpb.OpState_OP_PENDING
}

func authorizing(amount int64) *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: &paymentpb.Authorize{
		PaymentId: "pay_1", OrderId: "ord_1", Amount: amount, Currency: "EUR",
	}}}
}

// calledFirst is an authorization of which the provider has been asked before it is logged.
func calledFirst(amount int64, a *paymentpb.ProviderAnswer) *paymentpb.Command {
	c := authorizing(amount)
	c.GetAuthorize().CallFirst, c.GetAuthorize().Answer = true, a
	return c
}

func capturing(op string, amount int64) *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Capture{Capture: &paymentpb.Capture{PaymentId: "pay_1", Op: op, Amount: amount}}}
}

func voiding(op string) *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Void{Void: &paymentpb.Void{PaymentId: "pay_1", Op: op}}}
}

// voidingDoubtful voids an authorization that may have been carried out without being logged.
func voidingDoubtful(amount int64) *paymentpb.Command {
	c := voiding("")
	c.GetVoid().Authorize = calledFirst(amount, nil).GetAuthorize()
	return c
}

func refunding(op string, amount int64) *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Refund{Refund: &paymentpb.Refund{PaymentId: "pay_1", Op: op, Amount: amount}}}
}

func waking() *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Wake{Wake: &paymentpb.Wake{PaymentId: "pay_1"}}}
}

func retrying(op string) *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Retry{Retry: &paymentpb.RetryOp{PaymentId: "pay_1", Op: op}}}
}

func resolving(op string, succeeded bool) *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Resolve{Resolve: &paymentpb.ResolveOp{
		PaymentId: "pay_1", Op: op, Succeeded: succeeded, Operator: "ann", Evidence: "statement 7",
	}}}
}

// spoken is a command with an operator's word that it has been carried out.
func spoken(c *paymentpb.Command) *paymentpb.Command {
	w := &paymentpb.Word{Operator: "ann", Evidence: "cash"}
	switch c := c.Body.(type) {
	case *paymentpb.Command_Authorize:
		c.Authorize.Word = w
	case *paymentpb.Command_Capture:
		c.Capture.Word = w
	case *paymentpb.Command_Void:
		c.Void.Word = w
	case *paymentpb.Command_Refund:
		c.Refund.Word = w
	}
	return c
}

// asking is a command to settle an operation that refuses when it has ended.
func asking(c *paymentpb.Command) *paymentpb.Command {
	switch c := c.Body.(type) {
	case *paymentpb.Command_Retry:
		c.Retry.RefuseEnded = true
	case *paymentpb.Command_Resolve:
		c.Resolve.RefuseEnded = true
	}
	return c
}

// refused limits an input to where it does nothing: others reach what it would do, and the exploration stays small.
func refused(in input) input {
	in.can = func(s shop) bool {
		after := s.clone()
		return in.do(&after).Rejection != nil
	}
	return in
}

// leaf has what an input leads to be looked at, and not explored further: that would be much more of the same.
func leaf(in input) input {
	in.leaf = true
	return in
}

// inputs are tried in every state. The payment is about 3.
func inputs() []input {
	list := []input{
		commanded("authorize 3", OnAuthorize, authorizing(3)),
		commanded("authorize 4", OnAuthorize, authorizing(4)),
		commanded("authorize 3, succeeded", OnAuthorize, calledFirst(3, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "ref"})),
		commanded("authorize 3, declined", OnAuthorize, calledFirst(3, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "no"})),
		commanded("authorize 3, not sent", OnAuthorize, calledFirst(3, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_SENT})),
		commanded("authorize 3, unknown", OnAuthorize, calledFirst(3, &paymentpb.ProviderAnswer{})),
		commanded("void authorize 3", OnVoid, voidingDoubtful(3)),
		commanded("capture c1 2", OnCapture, capturing("c1", 2)),
		refused(commanded("capture c1 3", OnCapture, capturing("c1", 3))),
		commanded("capture c2 1", OnCapture, capturing("c2", 1)),
		commanded("void", OnVoid, voiding("")),
		{name: "void v2", on: OnVoid, can: voidInDoubt, do: func(s *shop) Step { return s.decide(voiding("v2")) }},
		commanded("refund r1 1", OnRefund, refunding("r1", 1)),
		refused(commanded("refund r1 3", OnRefund, refunding("r1", 3))),
		commanded("refund r2 2", OnRefund, refunding("r2", 2)),
		leaf(commanded("authorized outside", OnWord, spoken(authorizing(3)))),
		leaf(commanded("captured outside c1 2", OnWord, spoken(capturing("c1", 2)))),
		leaf(commanded("captured outside c2 1", OnWord, spoken(capturing("c2", 1)))),
		leaf(commanded("captured outside c1 3", OnWord, spoken(capturing("c1", 3)))),
		leaf(commanded("voided outside", OnWord, spoken(voiding("")))),
		leaf(commanded("voided outside, authorize 3", OnWord, spoken(voidingDoubtful(3)))),
		leaf(commanded("refunded outside r1 1", OnWord, spoken(refunding("r1", 1)))),
		leaf(commanded("refunded outside r2 2", OnWord, spoken(refunding("r2", 2)))),
		commanded("wake", OnWake, waking()),
		answered("succeeded", OnSucceeded, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "ref"}, called),
		answered("another amount", OnUnknown, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Amount: 77}, called),
		answered("declined", OnDeclined, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "no"}, called),
		answered("not found", OnNotFound, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_FOUND}, called),
		answered("not sent", OnNotSent, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_SENT}, called),
		answered("unknown", OnUnknown, &paymentpb.ProviderAnswer{}, called),
		{name: "undelivered", on: OnUndelivered, can: called, do: func(s *shop) Step {
			step := Undelivered(s.p, s.call, "no leader", noon+1, noon)
			s.take(step)
			return step
		}},
	}
	for _, op := range []string{AuthorizeOp, "c1", VoidOp, "r1"} {
		list = append(list,
			commanded("retry "+op, OnRetry, retrying(op)),
			commanded("resolve "+op+" succeeded", OnResolve, resolving(op, true)),
			commanded("resolve "+op+" failed", OnResolve, resolving(op, false)),
			refused(commanded("retry if it can be "+op, OnRetry, asking(retrying(op)))),
			refused(commanded("resolve if it can be "+op, OnResolve, asking(resolving(op, true)))),
		)
	}
	return list
}

// explore visits every way from every shop that can be reached, each once.
func explore(visit func(before, after shop, in input, step Step)) (shops int) {
	all := inputs()
	seen := map[string]bool{}
	next := []shop{{}}
	seen[next[0].key()] = true
	for len(next) > 0 {
		s := next[0]
		next = next[1:]
		shops++
		var ways []shop
		for _, in := range all {
			if in.can != nil && !in.can(s) {
				continue
			}
			after := s.clone()
			step := in.do(&after)
			visit(s, after, in, step)
			if !in.leaf {
				ways = append(ways, after)
			}
		}
		for _, w := range ways {
			if k := w.key(); !seen[k] {
				seen[k] = true
				next = append(next, w)
			}
		}
	}
	return shops
}
