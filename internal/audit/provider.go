package audit

import (
	"context"
	"fmt"
	"slices"

	"hanse/client"
	"hanse/internal/id"
	"hanse/internal/payment"
)

// provider is what the payment provider has done, by payment.
type provider struct {
	ledger Ledger
	last   uint64 // row
	// accounts of payments whose ID has the usual form, by their suffix: a year's worth of them has to fit into memory.
	accounts map[[suffixLength]byte]account
	// strange are those of other payments.
	strange map[string]account
}

// account is what the provider has done for one payment.
type account struct {
	sums
	// marks is the sum of the operations' digests: it tells other operations of the same amounts.
	marks          uint64
	authorizations int32
	seen           bool // a payment has been compared with it
}

func newProvider(l Ledger) *provider {
	return &provider{ledger: l, accounts: make(map[[suffixLength]byte]account), strange: make(map[string]account)}
}

// read takes in what has been added to the ledger.
func (p *provider) read(ctx context.Context) error {
	err := p.ledger(ctx, p.last, func(c Charge) {
		p.last = c.Seq
		if c.Declined {
			return
		}
		ac := p.account(c.PaymentID)
		ac.add(c.Kind, c.Amount)
		ac.marks += mark(c.Key, c.Kind, c.Currency, c.Amount)
		if c.Kind == "authorize" {
			ac.authorizations++
		}
		p.put(c.PaymentID, ac)
	})
	if err != nil {
		return fmt.Errorf("audit: read the provider's ledger: %w", err)
	}
	return nil
}

// suffix returns the part of a payment's ID by which it is kept, if it has the usual form.
func suffix(paymentID string) (s [suffixLength]byte, ok bool) {
	if _, err := id.Parse(id.Payment, paymentID); err != nil {
		return s, false
	}
	copy(s[:], paymentID[len(id.Payment)+1:])
	return s, true
}

func (p *provider) account(paymentID string) account {
	if s, ok := suffix(paymentID); ok {
		return p.accounts[s]
	}
	return p.strange[paymentID]
}

func (p *provider) put(paymentID string, a account) {
	if s, ok := suffix(paymentID); ok {
		p.accounts[s] = a
	} else {
		p.strange[paymentID] = a
	}
}

// unseen lists the payments that nothing has been compared with.
func (p *provider) unseen() (ids []string) {
	for s, a := range p.accounts {
		if !a.seen {
			ids = append(ids, id.Payment+"_"+string(s[:]))
		}
	}
	for s, a := range p.strange {
		if !a.seen {
			ids = append(ids, s)
		}
	}
	slices.Sort(ids)
	return ids
}

// judge compares a payment with the provider's account of it.
func (p *provider) judge(v *verdict, g *group) {
	paymentID := id.Sibling(id.Payment, g.id)
	if g.payment != nil {
		paymentID = g.payment.ID
	}
	found := p.account(paymentID)
	if found.marks == 0 && found.sums == (sums{}) {
		found.seen = true // nothing there
	} else if !found.seen {
		found.seen = true
		p.put(paymentID, found)
	}
	if found.authorizations > 1 {
		v.differ(ChargedTwice, paymentID, "one authorization", fmt.Sprintf("%d", found.authorizations))
	}
	switch {
	case g.payment == nil && found.sums != (sums{}):
		// An order that is about to ask for its payment has it a moment later.
		v.differ(LedgerNoPayment, paymentID, "a payment", found.sums)
	case g.payment == nil || v.open: // an operation may be done and its answer on the way
	case found.sums == sumsOf(g.payment) && found.marks == marks(g.payment):
	case decided(g.payment, found.sums):
		v.resolved = append(v.resolved, Difference{LedgerResolved, paymentID, sumsOf(g.payment).String(), found.String()})
	case found.sums != sumsOf(g.payment):
		v.differ(LedgerDiffers, paymentID, sumsOf(g.payment), found.sums)
	default:
		v.differ(LedgerDiffers, paymentID, "the payment's operations, each once under its key", "others of the same amounts")
	}
}

// decided says whether what the provider has can be what an operator's decisions leave open: it may not have done what he took for done, and may have
// done what he took for failed. What is left of an authorization may be voided there at any time: that takes nobody's money.
func decided(p *client.Payment, found sums) bool {
	var done, failed sums
	resolved := false
	for _, op := range p.Operations {
		if !payment.IsResolved(op.Code) {
			continue
		}
		resolved = true
		if op.State == "succeeded" {
			done.add(op.Kind, op.Amount)
		} else {
			failed.add(op.Kind, op.Amount)
		}
	}
	within := func(found, booked, done, failed int64) bool { return booked-done <= found && found <= booked+failed }
	return resolved && within(found.authorized, p.Authorized, done.authorized, failed.authorized) &&
		within(found.captured, p.Captured, done.captured, failed.captured) &&
		within(found.refunded, p.Refunded, done.refunded, failed.refunded) &&
		p.Voided-done.voided <= found.voided && found.captured+found.voided <= found.authorized
}
