package main

import (
	"fmt"
	"slices"

	"hanse/client"
	"hanse/internal/psp"
)

// verdict is what is wrong with the books, by the promise that is broken.
type verdict struct {
	lost, unfinished, charged []string
}

// money is what the provider has done for an order.
type money struct {
	authorizations                         int
	authorized, captured, voided, refunded int64
}

// ledgerByOrder sums the provider's ledger up. Declined operations moved nothing.
func ledgerByOrder(rows []*psp.Operation) map[string]money {
	sums := make(map[string]money)
	for _, op := range rows {
		if op.Declined {
			continue
		}
		m := sums[op.OrderID]
		switch op.Kind {
		case "authorize":
			m.authorizations++
			m.authorized += op.Amount
		case "capture":
			m.captured += op.Amount
		case "void":
			m.voided += op.Amount
		case "refund":
			m.refunded += op.Amount
		}
		sums[op.OrderID] = m
	}
	return sums
}

// judge compares what customers were told with what the cluster and the provider have in their books. All requests have their answer.
func judge(sales []*sale, orders []client.Order, ledger map[string]money) (v verdict) {
	byReference := make(map[string][]*client.Order)
	for i := range orders {
		o := &orders[i]
		byReference[o.MerchantReference] = append(byReference[o.MerchantReference], o)
	}
	for _, s := range sales {
		found := byReference[s.Reference]
		delete(byReference, s.Reference)
		v.judgeSale(s, found)
		for _, o := range found {
			v.judgeMoney(o, ledger[o.ID])
		}
	}
	for reference, found := range byReference {
		for _, o := range found {
			v.lost = append(v.lost, fmt.Sprintf("order %s, reference %q: nobody has placed it", o.ID, reference))
		}
	}
	slices.Sort(v.lost)
	return v
}

// ends are the states in which nothing is under way.
var ends = []string{"confirmed", "fulfilled", "completed", "canceled", "rejected", "expired"}

func (v *verdict) judgeSale(s *sale, found []*client.Order) {
	wrong := func(format string, args ...any) {
		v.lost = append(v.lost, s.Reference+": "+fmt.Sprintf(format, args...))
	}
	switch {
	case len(found) > 1:
		wrong("one request, %d orders", len(found))
		return
	case len(found) == 0 && (s.Placed.Outcome == accepted || s.ID != ""):
		wrong("order %s was acknowledged and is not there", s.ID)
		return
	case len(found) == 0:
		return
	}
	o := found[0]
	if s.Placed.Outcome == open {
		return // its place among the failures of settling
	}
	if s.ID != "" && o.ID != s.ID {
		wrong("order %s was acknowledged, %s is there", s.ID, o.ID)
	}
	if o.Total != s.total() || o.CustomerID != s.Customer {
		wrong("order %s is worth %d for %s, was placed with %d for %s", o.ID, o.Total, o.CustomerID, s.total(), s.Customer)
	}
	if !slices.Contains(ends, o.State) || len(o.Stuck) > 0 {
		v.unfinished = append(v.unfinished, fmt.Sprintf("order %s is %s since %s, %d steps stuck", o.ID, o.State, o.UpdatedAt.Format("15:04:05"), len(o.Stuck)))
		return
	}
	want := []string{"confirmed"}
	switch {
	case s.Placed.Outcome == refused:
		want = []string{"rejected", "expired"}
	case s.Cancel.Outcome == accepted:
		want = []string{"canceled"}
	case s.Fulfill.Outcome == accepted:
		want = []string{"fulfilled", "completed"}
	case s.Told != "confirmed": // accepted, and its outcome was not waited for
		want = []string{"confirmed", "rejected", "expired"}
	}
	if !slices.Contains(want, o.State) {
		wrong("order %s is %s, want %v (placing %s, cancel %s, fulfill %s)", o.ID, o.State, want, s.Placed, s.Cancel, s.Fulfill)
	}
	if n := len(o.Fulfillments); n != count(s.Fulfill) {
		wrong("order %s has %d shipments, customers were told of %d", o.ID, n, count(s.Fulfill))
	}
	if n := len(o.Refunds); n != count(s.Refund) {
		wrong("order %s has %d refunds, customers were told of %d", o.ID, n, count(s.Refund))
	}
	if s.Refund.Outcome == accepted && o.Payment.Refunded != s.Refund.Amount {
		v.unfinished = append(v.unfinished, fmt.Sprintf("order %s: %d refunded, %d promised", o.ID, o.Payment.Refunded, s.Refund.Amount))
	}
}

// count is how often a request happened.
func count(r request) int {
	if r.Outcome == accepted {
		return 1
	}
	return 0
}

func (r request) String() string {
	switch r.Outcome {
	case accepted:
		return "accepted"
	case refused:
		return "refused as " + r.Code
	case open:
		return "open"
	}
	return "not asked"
}

// judgeMoney compares an order with the provider's own books.
func (v *verdict) judgeMoney(o *client.Order, m money) {
	wrong := func(format string, args ...any) {
		v.charged = append(v.charged, "order "+o.ID+": "+fmt.Sprintf(format, args...))
	}
	if m.authorizations > 1 {
		wrong("authorized %d times", m.authorizations)
	}
	if m.captured > o.Total || m.refunded > m.captured {
		wrong("worth %d, captured %d, refunded %d at the provider", o.Total, m.captured, m.refunded)
	}
	if !slices.Contains(ends, o.State) {
		return // money may be on its way
	}
	if p := o.Payment; m.captured != p.Captured || m.refunded != p.Refunded || m.voided != p.Voided || m.authorized != p.Authorized {
		wrong("authorized %d, captured %d, refunded %d, voided %d in the cluster; %d, %d, %d, %d at the provider",
			p.Authorized, p.Captured, p.Refunded, p.Voided, m.authorized, m.captured, m.refunded, m.voided)
	}
	switch o.State {
	case "canceled", "rejected", "expired":
		if m.authorized != m.voided {
			wrong("%s, and of %d authorized %d is given back", o.State, m.authorized, m.voided)
		}
	case "fulfilled", "completed":
		if m.captured != o.Total {
			wrong("%s, worth %d, and %d is captured", o.State, o.Total, m.captured)
		}
	}
}
