package sim

import (
	"hanse/api/paymentpb"
	"hanse/internal/id"
	"hanse/internal/reactor"
	"hanse/internal/shard"
)

// provider is a payment provider with a ledger. Like a real one it answers the same under the same key, is
// out now and then, and its answers get lost.
type provider struct {
	w         *World
	rng       *random
	answers   map[string]*paymentpb.ProviderAnswer
	asked     map[string]*paymentpb.ProviderCall
	accounts  map[string]*account // by payment
	outUntil  int64
	sequences int64
}

// account is what the provider knows of a payment.
type account struct {
	order                                  string
	authorizations                         int
	authorized, captured, voided, refunded int64
}

const providerTimeout = 5 * second

func newProvider(w *World) *provider {
	return &provider{
		w: w, rng: newRandom(w.plan.Seed, "provider"),
		answers: make(map[string]*paymentpb.ProviderAnswer), asked: make(map[string]*paymentpb.ProviderCall), accounts: make(map[string]*account),
	}
}

// deliver carries a message of a payment's outbox to the provider.
func (p *provider) deliver(n *node, d reactor.Delivery, answered func(shard.Result, error)) {
	c := new(paymentpb.ProviderCall)
	if err := c.UnmarshalVT(d.Message.Payload); err != nil {
		p.w.fail("provider", "a call does not decode: %v", err)
		return
	}
	p.call(n, c, func(a *paymentpb.ProviderAnswer) { answered(shard.Result{Payload: encode(a)}, nil) })
}

// call asks the provider on behalf of a node.
func (p *provider) call(n *node, c *paymentpb.ProviderCall, answered func(*paymentpb.ProviderAnswer)) {
	w := p.w
	mutant := w.mutant.or()
	if mutant.call != nil {
		mutant.call(c)
	}
	life := n.life
	answer := func(delay int64, a *paymentpb.ProviderAnswer) {
		if mutant.answer != nil {
			a = mutant.answer(c, a)
		}
		if n.life == life {
			w.after(delay, n, "provider answers", func() { answered(a) })
		}
	}
	unknown := &paymentpb.ProviderAnswer{Code: "timeout"}
	there, back := p.rng.between(1, 40)*millisecond, p.rng.between(1, 40)*millisecond
	chance := func(f Fault) bool { return p.rng.chance(w.plan.rate(f)) && !w.calm }
	timeout, late, twice := chance(ProviderTimeout), chance(ProviderLate), chance(ProviderDuplicate)
	effect := p.rng.chance(0.6)
	switch {
	case w.now < p.outUntil && !w.calm:
		answer(there, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_SENT, Code: "connection refused"})
	case late:
		w.after(p.rng.between(1, 30)*second, nil, "late call", func() { p.execute(c) })
		answer(providerTimeout, unknown)
	case timeout:
		if effect {
			w.after(there, nil, "call", func() {
				p.execute(c)
				w.hit(probeTimeoutAfterEffect)
			})
		}
		answer(p.rng.between(1, 5)*second, unknown)
	default:
		w.after(there, nil, "call", func() {
			a := p.execute(c)
			answer(back, a)
			if twice && !c.Query {
				w.after(p.rng.exponential(second), nil, "call again", func() {
					p.execute(c)
					p.callBack(c)
				})
			}
		})
	}
}

// callBack tells some node about a payment, as a webhook would.
func (p *provider) callBack(c *paymentpb.ProviderCall) {
	n := p.w.nodes[p.rng.below(len(p.w.nodes))]
	sl, err := id.Parse(id.Payment, c.PaymentId)
	if n.life == 0 || err != nil || n.pausedUntil > p.w.now {
		return
	}
	if a := p.accounts[c.PaymentId]; a != nil && a.refunded > 0 {
		p.w.hit(probeCallbackAfterRefund)
	}
	m := &paymentpb.Command{Body: &paymentpb.Command_Wake{Wake: &paymentpb.Wake{PaymentId: c.PaymentId}}}
	n.router.propose(p.w.plan.Layout.Shard(shard.Payment, sl), shard.Command{Kind: shard.KindLogic, Payload: encode(m)}, false, true,
		p.w.now+deliveryTimeout, func(shard.Result, error) {})
	n.wake()
}

// execute does what a call asks for, once for each key.
func (p *provider) execute(c *paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
	a, known := p.answers[c.Key]
	if c.Query {
		if !known {
			return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_FOUND}
		}
		return a
	}
	if known {
		if first := p.asked[c.Key]; first.Amount != c.Amount || first.Kind != c.Kind {
			p.w.fail("provider", "key %s was used for %v %d and then for %v %d", c.Key, first.Kind, first.Amount, c.Kind, c.Amount)
		}
		return a
	}
	a = p.decide(c)
	p.answers[c.Key], p.asked[c.Key] = a, c
	return a
}

func (p *provider) decide(c *paymentpb.ProviderCall) *paymentpb.ProviderAnswer {
	acc := p.accounts[c.PaymentId]
	if acc == nil {
		acc = &account{order: c.OrderId}
		p.accounts[c.PaymentId] = acc
	}
	declined := p.w.plan.rate(ProviderDecline)
	if c.Kind != paymentpb.OpKind_AUTHORIZE {
		declined /= 10
	}
	// Voids are never declined here: an authorization that cannot be given back needs a person.
	if !p.w.calm && c.Kind != paymentpb.OpKind_VOID && p.rng.chance(declined) {
		p.w.hit(probeDeclined)
		return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "insufficient_funds"}
	}
	bad := ""
	switch c.Kind {
	case paymentpb.OpKind_AUTHORIZE:
		if acc.authorizations++; acc.authorizations > 1 {
			bad = "authorized twice"
		}
		acc.authorized += c.Amount
	case paymentpb.OpKind_CAPTURE:
		if acc.captured += c.Amount; acc.captured > acc.authorized-acc.voided {
			bad = "captured more than is authorized"
		}
	case paymentpb.OpKind_VOID:
		if acc.voided += c.Amount; acc.voided > acc.authorized-acc.captured {
			bad = "voided more than is authorized"
		}
	case paymentpb.OpKind_REFUND:
		if acc.refunded += c.Amount; acc.refunded > acc.captured {
			bad = "refunded more than was captured"
		}
	}
	if bad != "" {
		p.w.fail("provider", "payment %s of order %s is %s by %v %d under key %s: %+v", c.PaymentId, acc.order, bad, c.Kind, c.Amount, c.Key, *acc)
	}
	p.sequences++
	return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "ref-" + c.Key, Amount: c.Amount}
}
