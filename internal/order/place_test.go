package order

import (
	"slices"
	"strings"
	"testing"

	"hanse/api/orderpb"
	"hanse/internal/id"
	"hanse/internal/reject"
)

func TestWrongOrdersAreRefusedWithTheirPlace(t *testing.T) {
	line := func() *orderpb.Line { return &orderpb.Line{Sku: "a", Quantity: 2, UnitPrice: 10} }
	lines := func(n int) (all []*orderpb.Line) {
		for range n {
			all = append(all, line())
		}
		return all
	}
	for _, c := range []struct {
		name        string
		change      func(p *orderpb.Place)
		code, field string
	}{
		{"as it is", func(*orderpb.Place) {}, "", ""},
		{"the most lines", func(p *orderpb.Place) { p.Lines = lines(MaxLines) }, "", ""},
		{"a line more", func(p *orderpb.Place) { p.Lines = lines(MaxLines + 1) }, reject.TooManyLines, "/lines"},
		{"no lines", func(p *orderpb.Place) { p.Lines = nil }, reject.InvalidRequest, "/lines"},
		{"no ID", func(p *orderpb.Place) { p.Id = "" }, reject.InvalidID, "/id"},
		{"another kind of ID", func(p *orderpb.Place) { p.Id = fulfillmentID }, reject.InvalidID, "/id"},
		{"no currency", func(p *orderpb.Place) { p.Currency = "" }, reject.InvalidCurrency, "/currency"},
		{"currency in lower case", func(p *orderpb.Place) { p.Currency = "eur" }, reject.InvalidCurrency, "/currency"},
		{"currency of four", func(p *orderpb.Place) { p.Currency = "EURO" }, reject.InvalidCurrency, "/currency"},
		{"customer with a zero byte", func(p *orderpb.Place) { p.CustomerId = "a\x00b" }, reject.InvalidRequest, "/customer_id"},
		{"customer not in UTF-8", func(p *orderpb.Place) { p.CustomerId = "a\xff" }, reject.InvalidRequest, "/customer_id"},
		{"long customer", func(p *orderpb.Place) { p.CustomerId = strings.Repeat("a", MaxNameBytes+1) }, reject.InvalidRequest, "/customer_id"},
		{"long location", func(p *orderpb.Place) { p.Location = strings.Repeat("a", MaxNameBytes+1) }, reject.InvalidRequest, "/location"},
		{"long method", func(p *orderpb.Place) { p.PaymentMethod = strings.Repeat("a", MaxNameBytes+1) }, reject.InvalidRequest, "/payment/method"},
		{"long reference", func(p *orderpb.Place) { p.MerchantReference = strings.Repeat("a", MaxTextBytes+1) }, reject.InvalidRequest, "/merchant_reference"},
		{"reference of two lines", func(p *orderpb.Place) { p.MerchantReference = "a\nb" }, "", ""},
		{"no SKU", func(p *orderpb.Place) { p.Lines[1].Sku = "" }, reject.InvalidRequest, "/lines/1/sku"},
		{"SKU with spaces around", func(p *orderpb.Place) { p.Lines[1].Sku = " a" }, reject.InvalidRequest, "/lines/1/sku"},
		{"SKU with a space in it", func(p *orderpb.Place) { p.Lines[1].Sku = "a b" }, "", ""},
		{"SKU with a tab", func(p *orderpb.Place) { p.Lines[1].Sku = "a\tb" }, reject.InvalidRequest, "/lines/1/sku"},
		{"SKU not in UTF-8", func(p *orderpb.Place) { p.Lines[1].Sku = "a\xffb" }, reject.InvalidRequest, "/lines/1/sku"},
		{"the longest SKU", func(p *orderpb.Place) { p.Lines[1].Sku = strings.Repeat("a", MaxSKUChars) }, "", ""},
		{"a longer SKU", func(p *orderpb.Place) { p.Lines[1].Sku = strings.Repeat("a", MaxSKUChars+1) }, reject.InvalidRequest, "/lines/1/sku"},
		{"SKU of letters with accents", func(p *orderpb.Place) { p.Lines[1].Sku = "Größe-Ø" }, "", ""},
		{"quantity 0", func(p *orderpb.Place) { p.Lines[1].Quantity = 0 }, reject.InvalidQuantity, "/lines/1/quantity"},
		{"negative quantity", func(p *orderpb.Place) { p.Lines[1].Quantity = -1 }, reject.InvalidQuantity, "/lines/1/quantity"},
		{"too large a quantity", func(p *orderpb.Place) { p.Lines[1].Quantity = MaxQuantity + 1 }, reject.InvalidQuantity, "/lines/1/quantity"},
		{"negative price", func(p *orderpb.Place) { p.Lines[1].UnitPrice = -1 }, reject.InvalidAmount, "/lines/1/unit_price"},
		{"for nothing", func(p *orderpb.Place) { p.Lines[1].UnitPrice = 0 }, "", ""},
		{"the largest amount", func(p *orderpb.Place) { p.Lines = lines(1); p.Lines[0].Quantity, p.Lines[0].UnitPrice = 1, MaxAmount }, "", ""},
		{"a line beyond it", func(p *orderpb.Place) { p.Lines[1].UnitPrice = MaxAmount }, reject.AmountOverflow, "/lines/1"},
		{"a line beyond 64 bits", func(p *orderpb.Place) { p.Lines[1].Quantity, p.Lines[1].UnitPrice = MaxQuantity, 1<<62 }, reject.AmountOverflow, "/lines/1"},
		{"a sum beyond it", func(p *orderpb.Place) { p.Lines[1].Quantity, p.Lines[1].UnitPrice = 1, MaxAmount }, reject.AmountOverflow, "/lines/1"},
		{"the right total", func(p *orderpb.Place) { p.HasTotal, p.Total = true, 40 }, "", ""},
		{"a wrong total", func(p *orderpb.Place) { p.HasTotal, p.Total = true, 41 }, reject.TotalMismatch, "/total"},
		{"a total that is not stated", func(p *orderpb.Place) { p.Total = 41 }, "", ""},
	} {
		p := &orderpb.Place{Id: orderID, Currency: "EUR", Lines: lines(2)}
		c.change(p)
		events, r := DecidePlace(p, shardOf, 1000)
		if r == nil {
			r = &reject.Rejection{}
		}
		if r.Code != c.code || r.Field != c.field || (r.Code == "") != (len(events) > 0) {
			t.Errorf("%s: DecidePlace = %d events, %q at %q (%s), want %q at %q", c.name, len(events), r.Code, r.Field, r.Detail, c.code, c.field)
		}
	}
}

func TestLegsAreInOrderAndOnce(t *testing.T) {
	s := place(
		&orderpb.Line{Sku: "b1", Quantity: 1}, &orderpb.Line{Sku: "a1", Quantity: 1}, &orderpb.Line{Sku: "b2", Quantity: 1},
		&orderpb.Line{Sku: "a2", Quantity: 1}, &orderpb.Line{Sku: "b1", Quantity: 1},
	)
	if len(s.o.Legs) != 2 || s.o.Legs[0].Shard != 0 || s.o.Legs[1].Shard != 1 {
		t.Errorf("legs are %v, want shards 0 and 1", s.o.Legs)
	}
}

func TestEventTypesAreUnique(t *testing.T) {
	types := EventTypes()
	slices.Sort(types)
	if n := len(types); len(slices.Compact(types)) != n || n != int(kindCount)-1+2 {
		t.Errorf("EventTypes() has %d names, %d are different: %v", n, len(slices.Compact(types)), types)
	}
	for _, k := range Kinds() {
		if k.String() == "" || k.String() == "unknown" {
			t.Errorf("kind %d has no name", k)
		}
	}
	if got := KindOf(&orderpb.Event{}); got != KindUnknown {
		t.Errorf("KindOf(no detail) = %v, want unknown", got)
	}
}

// Every event that a variant's history has is of a kind that has its name, and together they show all kinds.
func TestVariantsShowEveryKindOfEvent(t *testing.T) {
	seen := map[Kind]bool{}
	for _, v := range variants {
		for _, a := range attempts {
			s := v.make()
			events, _ := a.do(s.o, 2000)
			for _, e := range slices.Concat(s.events, events) {
				seen[KindOf(e)] = true
				if !slices.Contains(EventTypes(), EventType(e)) {
					t.Errorf("EventTypes() does not list %s", EventType(e))
				}
			}
		}
	}
	for _, k := range Kinds() {
		if !seen[k] {
			t.Errorf("no variant shows %s", k)
		}
	}
}

func TestStatusIsDerived(t *testing.T) {
	for _, c := range []struct {
		name                        string
		story                       *story
		payment, fulfillment, goods string
		open                        bool
	}{
		{"placed", twoLegs(), "none", "unfulfilled", "none", true},
		{"held", held(), "pending", "unfulfilled", "none", true},
		{"confirmed", confirmed(), "authorized", "unfulfilled", "none", false},
		{"partly fulfilled", confirmed().fulfill(fulfillmentID, item(1, 2)), "authorized", "partial", "none", true},
		{"partly captured", func() *story {
			s := confirmed().fulfill(fulfillmentID, item(1, 2))
			return s.then(PaymentCaptured(s.o, fulfillmentID, 20, 1))
		}(), "partially_captured", "partial", "none", false},
		{"captured", capturedStory(), "captured", "fulfilled", "none", false},
		{"refund asked for", capturedStory().refund(refundID, 35), "captured", "fulfilled", "none", true},
		{"partly refunded", func() *story {
			s := capturedStory().refund(refundID, 35)
			return s.then(PaymentRefunded(s.o, refundID, 35, 1))
		}(), "partially_refunded", "fulfilled", "none", false},
		{"refunded", func() *story {
			s := capturedStory().refund(refundID, 235)
			return s.then(PaymentRefunded(s.o, refundID, 235, 1))
		}(), "refunded", "fulfilled", "none", false},
		{"partly returned", func() *story {
			s := capturedStory()
			return s.then(must(DecideReturn(s.o, &orderpb.ReturnItems{ReturnId: returnID, NoRefund: true, Items: []*orderpb.Item{item(1, 1)}}, 1)))
		}(), "captured", "fulfilled", "partial", false},
		{"returned", func() *story {
			s := capturedStory()
			items := []*orderpb.Item{item(1, 3), item(2, 2), item(3, 1)}
			return s.then(must(DecideReturn(s.o, &orderpb.ReturnItems{ReturnId: returnID, NoRefund: true, Items: items}, 1)))
		}(), "captured", "fulfilled", "returned", false},
		{"declined", func() *story { s := held(); return s.then(PaymentDeclined(s.o, "no", 1)) }(), "declined", "unfulfilled", "none", true},
		{"voided", func() *story { s := confirmed().cancel(); return s.then(PaymentVoided(s.o, 235, 1)) }(), "voided", "unfulfilled", "none", true},
		{"free", place(&orderpb.Line{Sku: "post", Quantity: 1, Untracked: true}), "none", "unfulfilled", "none", false},
		{"stuck", confirmed().stuck(1, "allocate", 0), "authorized", "unfulfilled", "none", true},
	} {
		o := c.story.o
		if p, f, r := PaymentStatus(o), FulfillmentStatus(o), ReturnStatus(o); p != c.payment || f != c.fulfillment || r != c.goods {
			t.Errorf("%s: payment %s, fulfillment %s, return %s; want %s, %s, %s", c.name, p, f, r, c.payment, c.fulfillment, c.goods)
		}
		if got := Open(o); got != c.open {
			t.Errorf("%s: Open = %v, want %v", c.name, got, c.open)
		}
	}
}

// A return's refund has the return's ID with another prefix: it is never mistaken for a refund that was asked for under the same.
func TestTwoRefundsNeverShareAnID(t *testing.T) {
	goods := func(s *story) ([]*orderpb.Event, *reject.Rejection) {
		return DecideReturn(s.o, &orderpb.ReturnItems{ReturnId: id.Sibling(id.Return, refundID), Items: []*orderpb.Item{item(1, 1)}}, 1)
	}
	money := func(s *story) ([]*orderpb.Event, *reject.Rejection) {
		return DecideRefund(s.o, &orderpb.RefundAmount{RefundId: refundID, Amount: 7}, 1)
	}
	for _, c := range []struct {
		name          string
		first, second func(s *story) ([]*orderpb.Event, *reject.Rejection)
		want          string
	}{
		{"goods, then money", goods, money, reject.InvalidID},
		{"money, then goods", money, goods, reject.InvalidID},
		{"goods again", goods, goods, ""},
		{"money again", money, money, ""},
	} {
		s := capturedStory()
		s.then(must(c.first(s)))
		if events, r := c.second(s); code(r) != c.want || len(events) > 0 {
			t.Errorf("%s: %v and events %v, want %q and none", c.name, r, events, c.want)
		}
	}
}

func capturedStory() *story {
	s := confirmed().fulfill(fulfillmentID)
	return s.then(PaymentCaptured(s.o, fulfillmentID, 235, 1))
}

// An event that the table does not know, or that is not the next one, stops the program instead of being built on.
func TestFoldStopsAtAHistoryThatCannotBe(t *testing.T) {
	for name, e := range map[string]*orderpb.Event{
		"not the next":          {Version: 9, Detail: &orderpb.Event_Confirmed{Confirmed: &orderpb.Confirmed{}}},
		"the same again":        {Version: 1, Detail: &orderpb.Event_Confirmed{Confirmed: &orderpb.Confirmed{}}},
		"not in this state":     {Version: 2, Detail: &orderpb.Event_PaymentCaptured{PaymentCaptured: &orderpb.PaymentCaptured{}}},
		"without detail":        {Version: 2},
		"of a shard of nothing": {Version: 2, Detail: &orderpb.Event_StockReserved{StockReserved: &orderpb.StockReserved{Shard: 9}}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: Fold went on", name)
				}
			}()
			Fold(twoLegs().o, e)
		}()
	}
}

// What a decision made belongs to the event: folding it twice, or changing the order later, must not change the event.
func TestFoldKeepsNothingOfTheEvent(t *testing.T) {
	for _, v := range variants {
		s := v.make()
		before := make([]*orderpb.Event, len(s.events))
		for i, e := range s.events {
			before[i] = e.CloneVT()
		}
		for _, l := range s.o.Lines {
			l.Fulfilled += 7
		}
		for _, f := range s.o.Fulfillments {
			f.Items[0].Quantity += 7
			f.Captured += 7
		}
		for _, r := range s.o.Refunds {
			r.Failed = "changed"
		}
		for _, st := range s.o.Stuck {
			st.Cause = "changed"
		}
		for _, leg := range s.o.Legs {
			leg.State = orderpb.LegState_LEG_REFUSED
		}
		for i, e := range s.events {
			if !e.EqualVT(before[i]) {
				t.Errorf("%s: event %d has changed with the order", v.name, i+1)
			}
		}
	}
}
