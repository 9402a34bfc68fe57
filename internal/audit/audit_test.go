package audit

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hanse/client"
	"hanse/internal/id"
)

// example has an order of every kind, by name.
func example() (*shop, map[string]handle) {
	s := new(shop)
	for _, sku := range []string{"A", "B", "C", "D"} {
		s.receive(sku, 100)
	}
	s.item("FREE").Tracked = false
	postage := client.Line{SKU: "POST", Quantity: 1, UnitPrice: 500}
	orders := map[string]handle{
		"confirmed": s.place(tracked("A", 2, 1000), tracked("B", 1, 300), tracked("A", 1, 900), postage).confirm(),
		"shipped":   s.place(tracked("A", 2, 1000), tracked("FREE", 3, 10)).confirm().ship(1, 2).ship(2, 3),
		"partly":    s.place(tracked("C", 5, 100)).confirm().ship(1, 2),
		"trimmed":   s.place(tracked("C", 5, 100), tracked("D", 1, 50)).confirm().ship(1, 2).cancelRest(),
		"returned":  s.place(tracked("B", 4, 100)).confirm().ship(1, 4).takeBack(1, 1, "sellable"),
		"damaged":   s.place(tracked("B", 4, 100)).confirm().ship(1, 4).takeBack(1, 2, "damaged").takeBack(1, 1, "lost"),
		"canceled":  s.place(tracked("D", 4, 100)).confirm().cancelRest(),
		"free":      s.place(tracked("D", 1, 0)).confirm(),
		"placing":   s.place(tracked("A", 1, 100)),
		"reserved":  s.place(tracked("A", 1, 100)).reserve(),
		"rejected":  s.place(tracked("A", 1, 100), tracked("B", 99, 100)),
	}
	o := orders["rejected"].order()
	o.State, o.Lines[0].Canceled, o.Lines[1].Canceled = "rejected", 1, 99
	s.holds[shardOf("A")] = append(s.holds[shardOf("A")], client.Hold{ID: o.ID, State: "void"})
	s.holds[shardOf("B")] = append(s.holds[shardOf("B")], client.Hold{ID: o.ID, State: "refused", Location: "main", Lines: []client.HoldLine{{SKU: "B", Quantity: 99}}})
	s.holds[shardOf("C")] = append(s.holds[shardOf("C")], client.Hold{
		ID: "rsv_01kq3m6s2zt1m2n8c4v7d9e5fg", State: "held", Location: "main", FreeStanding: true, Lines: []client.HoldLine{{SKU: "C", Quantity: 7}},
	})
	s.move("C", 0, 7, 0, 0)
	return s, orders
}

func config() Config {
	cfg := DefaultConfig()
	cfg.Now = func() time.Time { return created.Add(time.Minute) }
	return cfg
}

// run audits in virtual time.
func run(t *testing.T, s *shop, cfg Config) (report *Report) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if report, err = Run(t.Context(), s, s.ledger, cfg); err != nil {
			t.Fatal(err)
		}
	})
	return report
}

func TestCleanBooks(t *testing.T) {
	s, _ := example()
	r := run(t, s, config())
	if len(r.Differences) > 0 {
		t.Errorf("differences in clean books: %v", r.Differences)
	}
	want := Report{Orders: 11, SKUs: 5, Payments: 7, Open: 2}
	if r.Orders != want.Orders || r.SKUs != want.SKUs || r.Payments != want.Payments || r.Open != want.Open || r.Stuck != 0 || r.Moving != 0 {
		t.Errorf("report %+v, want %+v", r, want)
	}
	if r.CheckedAt["order/0"] != 17 {
		t.Errorf("checked at %v, want order/0 at 17", r.CheckedAt)
	}
}

// Each row breaks one thing; the audit names it, and nothing else.
func TestEveryDifferenceIsNamed(t *testing.T) {
	type books struct {
		*shop
		orders map[string]handle
	}
	for _, test := range []struct {
		name string
		do   func(b books)
		kind string
		of   string // name of the order that the difference is about, or an ID
	}{
		{"a stored order is not its events", func(b books) {
			o := b.orders["shipped"].scanned()
			f := o.Stored
			o.Folded = &f
			o.Stored.State = "confirmed"
		}, OrderNotItsEvents, "shipped"},
		{"a line's total", func(b books) { b.orders["shipped"].order().Lines[0].UnitPrice++ }, OrderLine, "shipped"},
		{"more returned than fulfilled", func(b books) {
			o := b.orders["returned"].order()
			o.Lines[0].Returned, o.Returns[0].Items[0].Quantity, o.Returns[0].Disposition = 5, 5, "lost"
			b.orders["returned"].line("B").Restocked = 0
			b.move("B", -1, 0, 0, 0)
		}, OrderLine, "returned"},
		{"a shipment that its line does not know", func(b books) { b.orders["partly"].order().Fulfillments[0].Items[0].Line = 9 }, OrderLine, "partly"},
		{"an order's total", func(b books) {
			o := b.orders["free"].order()
			o.Lines[0].UnitPrice, o.Lines[0].Total = 1, 1
		}, OrderTotal, "free"},
		{"confirmed without money", func(b books) {
			h := b.orders["confirmed"]
			h.order().Payment.Authorized, h.payment().Authorized, h.payment().Operations, h.payment().Requested = 0, 0, nil, 0
			b.charges = slices.DeleteFunc(b.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID })
		}, OrderMoney, "confirmed"},
		{"canceled without its money back", func(b books) {
			h := b.orders["canceled"]
			h.order().Payment.Voided, h.payment().Voided = 0, 0
			h.payment().Operations = h.payment().Operations[:1]
			b.charges = slices.DeleteFunc(b.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID && c.Kind == "void" })
		}, OrderMoney, "canceled"},
		{"a refund that the order has forgotten", func(b books) { b.orders["returned"].order().Refunds = nil }, OrderMoney, "returned"},
		{"a hold has gone", func(b books) {
			h := b.orders["partly"]
			i := shardOf("C")
			b.holds[i] = slices.DeleteFunc(b.holds[i], func(x client.Hold) bool { return x.ID == h.id })
			b.item("C").OnHand += 2
			b.item("C").Allocated -= 3
			b.move("C", 0, 0, 0, 0)
		}, HoldMissing, "partly"},
		{"a hold keeps another quantity", func(b books) {
			b.orders["confirmed"].line("B").Quantity++
			b.move("B", 0, 0, 1, 0)
		}, HoldDiffers, "confirmed"},
		{"stock that was never allocated", func(b books) {
			b.orders["free"].hold("D").State = "held"
			b.move("D", 0, 1, -1, 0)
		}, HoldDiffers, "free"},
		{"stock that a canceled order still keeps", func(b books) {
			h := b.orders["canceled"]
			h.hold("D").State, h.line("D").Released = "allocated", 0
			b.move("D", 0, 0, 4, 0)
		}, HoldDiffers, "canceled"},
		{"a canceled order's stock that was sent", func(b books) {
			h := b.orders["canceled"]
			h.line("D").Released, h.line("D").Fulfilled = 3, 1
			b.move("D", -1, 0, 0, 0)
		}, HoldDiffers, "canceled"},
		{"a return that never arrived", func(b books) {
			b.orders["returned"].line("B").Restocked = 0
			b.move("B", -1, 0, 0, 0)
		}, HoldDiffers, "returned"},
		{"a SKU that nobody ordered", func(b books) {
			h := b.orders["free"].hold("D")
			h.Lines = append(h.Lines, client.HoldLine{SKU: "B", Quantity: 1})
			b.move("B", 0, 0, 1, 0)
		}, HoldDiffers, "free"},
		{"a hold at another location", func(b books) {
			h := b.orders["free"].hold("D")
			h.Location = "attic"
			b.move("D", 0, 0, -1, 0)
			b.items[shardOf("D")] = append(b.items[shardOf("D")], client.Location{SKU: "D", Location: "attic", Allocated: 1, OnHand: 1, Tracked: true})
			b.movements[shardOf("D")] = append(b.movements[shardOf("D")], client.Movement{Seq: uint64(len(b.movements[shardOf("D")]) + 1), SKU: "D", Location: "attic", Quantity: 1})
		}, HoldDiffers, "free"},
		{"a hold without an order", func(b books) {
			b.holds[0] = append([]client.Hold{{ID: "ord_00000000000000000000000000", State: "released", Location: "main"}}, b.holds[0]...)
		}, HoldWithoutOrder, "ord_00000000000000000000000000"},
		{"a payment has gone", func(b books) {
			h := b.orders["confirmed"]
			p := *h.payment()
			for i := range b.payments {
				b.payments[i] = slices.DeleteFunc(b.payments[i], func(x client.Payment) bool { return x.ID == p.ID })
			}
			b.charges = slices.DeleteFunc(b.charges, func(c Charge) bool { return c.PaymentID == p.ID })
		}, PaymentMissing, "confirmed"},
		{"a payment of another amount", func(b books) {
			h := b.orders["partly"]
			h.payment().Captured++
			h.payment().Operations[1].Amount++
			i := slices.IndexFunc(b.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID && c.Kind == "capture" })
			b.charges[i].Amount++
		}, PaymentDiffers, "partly"},
		{"a payment in another currency", func(b books) {
			h := b.orders["partly"]
			h.payment().Currency = "USD"
			for i := range b.charges {
				if b.charges[i].PaymentID == h.payment().ID {
					b.charges[i].Currency = "USD"
				}
			}
		}, PaymentDiffers, "partly"},
		{"an operation has gone", func(b books) {
			h := b.orders["damaged"]
			h.payment().Operations = slices.Delete(h.payment().Operations, 1, 2)
			b.charges = slices.DeleteFunc(b.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID && c.Kind == "capture" })
			i := slices.IndexFunc(b.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID })
			c := b.charges[i]
			c.Seq, c.Kind, c.Key, c.Amount = uint64(len(b.charges)+20), "capture", h.payment().ID+".ful_1", 400
			b.charges = append(b.charges, c)
		}, PaymentOperations, "damaged"},
		{"a payment without an order", func(b books) {
			b.payments[0] = append([]client.Payment{{ID: "pay_00000000000000000000000000", OrderID: "ord_00000000000000000000000000"}}, b.payments[0]...)
		}, PaymentNoOrder, "pay_00000000000000000000000000"},
		{"a card charged twice", func(b books) {
			h := b.orders["confirmed"]
			i := slices.IndexFunc(b.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID })
			c := b.charges[i]
			c.Key, c.Seq = c.Key+".again", uint64(len(b.charges)+1)
			b.charges = append(b.charges, c)
		}, ChargedTwice, "confirmed"},
		{"a capture that the provider does not know", func(b books) {
			h := b.orders["partly"]
			b.charges = slices.DeleteFunc(b.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID && c.Kind == "capture" })
		}, LedgerDiffers, "partly"},
		{"an operation under another key", func(b books) {
			h := b.orders["partly"]
			i := slices.IndexFunc(b.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID && c.Kind == "capture" })
			b.charges[i].Key += "x"
		}, LedgerDiffers, "partly"},
		{"a charge that no payment asked for", func(b books) {
			p := id.Sibling(id.Payment, b.orders["free"].id)
			b.charges = append(b.charges, Charge{Seq: uint64(len(b.charges) + 1), Key: p + ".auth", PaymentID: p, Kind: "authorize", Currency: "EUR", Amount: 7})
		}, LedgerNoPayment, "free"},
		{"a charge of an order that does not exist", func(b books) {
			p := "pay_00000000000000000000000000"
			b.charges = append(b.charges, Charge{Seq: uint64(len(b.charges) + 1), Key: p + ".auth", PaymentID: p, Kind: "authorize", Currency: "EUR", Amount: 7})
		}, LedgerNoPayment, "pay_00000000000000000000000000"},
		{"somebody else's charge", func(b books) {
			b.charges = append(b.charges, Charge{Seq: uint64(len(b.charges) + 1), Key: "k", PaymentID: "theirs", Kind: "authorize", Currency: "EUR", Amount: 7})
		}, LedgerNoPayment, "theirs"},
		{"units on hand", func(b books) { b.move("A", -1, 0, 0, 0) }, StockDiffers, "A at main"},
		{"units reserved", func(b books) { b.move("B", 0, 1, 0, 0) }, StockDiffers, "B at main"},
		{"units allocated", func(b books) { b.move("C", 0, 0, -1, 0) }, StockDiffers, "C at main"},
		{"units damaged", func(b books) { b.move("B", 0, 0, 0, -1) }, StockDiffers, "B at main"},
		{"available that does not add up", func(b books) { b.item("B").Available++ }, StockDiffers, "B at main"},
		{"a SKU has gone", func(b books) { b.items[shardOf("A")] = b.items[shardOf("A")][1:] }, StockDiffers, "A at main"},
		{"a receipt has gone", func(b books) {
			m := &b.movements[shardOf("A")]
			b.move((*m)[0].SKU, -(*m)[0].Quantity, 0, 0, 0)
			*m = (*m)[1:]
		}, MovementGap, fmt.Sprintf("inventory/%d", shardOf("A"))},
		{"a saga has stopped", func(b books) { b.orders["placing"].order().UpdatedAt = created.Add(-time.Hour) }, OrderStalled, "placing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, orders := example()
			if test.kind == MovementGap { // so that stock is not below zero without the receipt
				s.receive("A", 1000)
			}
			test.do(books{s, orders})
			r := run(t, s, config())
			want := test.of
			if h, ok := orders[test.of]; ok {
				want = strings.TrimPrefix(h.id, id.Order+"_")
			}
			found := false
			for _, d := range r.Differences {
				found = found || d.Kind == test.kind
				if !strings.Contains(d.ID, want) {
					t.Errorf("difference %v, want only such about %s", d, want)
				}
			}
			if !found {
				t.Errorf("differences %v, want a %s", r.Differences, test.kind)
			}
		})
	}
}

func TestWithoutALedgerTheProviderIsNotCompared(t *testing.T) {
	s, _ := example()
	s.charges = nil
	synctest.Test(t, func(t *testing.T) {
		r, err := Run(t.Context(), s, nil, config())
		if err != nil || len(r.Differences) > 0 {
			t.Errorf("Run = %v, %v; want no difference", r, err)
		}
	})
}

// A saga that goes on while the audit reads looks wrong at first.
func TestWhatSettlesIsNoDifference(t *testing.T) {
	s, orders := example()
	h := orders["partly"]
	// The order is shipped; its hold and the capture follow later.
	h.ship(1, 3)
	line, p, charges := *h.line("C"), *h.payment(), s.charges
	h.line("C").Fulfilled -= 3
	h.hold("C").State = "allocated"
	h.payment().Operations = h.payment().Operations[:2]
	h.payment().Captured -= 300
	s.charges = s.charges[:len(charges)-1]
	s.move("C", 3, 0, 3, 0)
	scans := 0
	s.onScan = func(what string) {
		if what != "payments" {
			return
		}
		if scans++; scans == paymentShards+1 { // the first look is over
			*h.line("C"), *h.payment(), s.charges = line, p, charges
			h.hold("C").State = "consumed"
			s.move("C", -3, 0, -3, 0)
		}
	}
	r := run(t, s, config())
	if len(r.Differences) > 0 || r.Open != 2 {
		t.Errorf("report %+v, want no difference and the two open orders of the example", r)
	}
}

// An order hears of its authorization before its payment does, when that waits to ask the provider again.
func TestAPaymentThatHasYetToAsk(t *testing.T) {
	for _, state := range []string{"pending", "sent", "unknown"} {
		s, orders := example()
		p := orders["confirmed"].payment()
		p.Authorized, p.Operations[0].State = 0, state
		if r := run(t, s, config()); len(r.Differences) > 0 || r.Open != 3 {
			t.Errorf("an authorization that is %s: %+v, want no difference, and one more open than the two of the example", state, r)
		}
		p.Operations[0].Amount--
		if r := run(t, s, config()); !slices.ContainsFunc(r.Differences, func(d Difference) bool { return d.Kind == PaymentDiffers && d.ID == p.ID }) {
			t.Errorf("an authorization of less than the order's that is %s: %+v, want that the payment differs", state, r.Differences)
		}
	}
	s, orders := example()
	p := orders["confirmed"].payment()
	p.Authorized, p.Operations[0].State = 0, "declined"
	if r := run(t, s, config()); !slices.ContainsFunc(r.Differences, func(d Difference) bool { return d.Kind == PaymentDiffers && d.ID == p.ID }) {
		t.Errorf("an authorization that was declined: %+v, want that the payment differs", r.Differences)
	}
}

// A SKU that is sold all the time cannot be compared, and one that has rested once is not looked at again.
func TestMovingStock(t *testing.T) {
	for _, test := range []struct {
		name   string
		until  int // item scans that find A changed
		moving int
	}{
		{"comes to rest", 5, 0},
		{"never rests", 1 << 30, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := example()
			n := 0
			s.onScan = func(what string) {
				if what == "items" && n < test.until {
					n++
					s.item("A").Revision++
				}
			}
			r := run(t, s, config())
			if len(r.Differences) > 0 || r.Moving != test.moving || r.SKUs != 5 {
				t.Errorf("report %+v, want %d moving SKUs and no difference", r, test.moving)
			}
		})
	}
}

// A hold of an order that is not there is one that is being placed, or expires.
func TestHoldsOfOrdersThatWereNotPlaced(t *testing.T) {
	for _, test := range []struct {
		state             string
		age               time.Duration
		differences, open int
	}{
		{"tentative", 0, 0, 3}, {"tentative", config().StalledAfter, 0, 3}, {"tentative", config().StalledAfter + time.Second, 1, 3},
		{"expired", time.Hour, 0, 2}, {"held", 0, 1, 2}, {"allocated", 0, 1, 2}, {"void", 0, 1, 2}, {"refused", 0, 1, 2},
	} {
		s, _ := example()
		h := client.Hold{ID: "ord_00000000000000000000000000", State: test.state, Location: "main", UpdatedAt: config().Now().Add(-test.age)}
		s.holds[0] = append([]client.Hold{h}, s.holds[0]...)
		r := run(t, s, config())
		if len(r.Differences) != test.differences || r.Open != test.open {
			t.Errorf("%s for %v: %d open and the differences %+v, want %d and %d of them", test.state, test.age, r.Open, r.Differences, test.open, test.differences)
		}
	}
}

// Only sagas that have ended are held to their holds and payments; those that wait for a person are counted.
func TestStuckSagasAreCounted(t *testing.T) {
	s, orders := example()
	o := orders["confirmed"].order()
	o.Stuck = []client.StuckStep{{Seq: 3, Step: "allocate"}}
	o.Attention = true
	orders["confirmed"].hold("A").State = "held"
	s.move("A", 0, 3, -3, 0)
	r := run(t, s, config())
	if len(r.Differences) > 0 || r.Open != 3 || r.Stuck != 1 {
		t.Errorf("report %+v, want 3 open orders, one of them stuck, and no difference", r)
	}
}

// Many pages of several shards come together, whatever the order in which they were filled.
func TestJoinOfManyPages(t *testing.T) {
	const orders = 3*pageRows + 7
	s := new(shop)
	s.receive("A", 10*orders)
	s.receive("B", 10*orders)
	rng := rand.New(rand.NewPCG(1, 2))
	for range orders {
		h := s.place(tracked([]string{"A", "B"}[rng.IntN(2)], 1+rng.Int64N(3), 100)).confirm()
		if rng.IntN(2) == 0 {
			h.ship(1, h.order().Lines[0].Quantity)
		}
	}
	r := run(t, s, config())
	if len(r.Differences) > 0 || r.Orders != orders || r.Payments != orders {
		t.Fatalf("%d orders, %d payments, differences %v; want %d of each and none", r.Orders, r.Payments, r.Differences, orders)
	}
	h := handle{s, s.orders[0][len(s.orders[0])-1].Stored.ID} // on a last page
	h.order().Total++
	if r := run(t, s, config()); len(r.Differences) == 0 || r.Differences[0].ID != h.id {
		t.Errorf("differences %v, want one of %s", r.Differences, h.id)
	}
}

func TestFailuresEndTheAudit(t *testing.T) {
	s, _ := example()
	s.fail = errors.New("no answer")
	if _, err := Run(t.Context(), s, s.ledger, config()); !errors.Is(err, s.fail) {
		t.Errorf("Run = %v, want %v", err, s.fail)
	}
	s.fail = nil
	broken := errors.New("torn page")
	ledger := func(context.Context, uint64, func(Charge)) error { return broken }
	if _, err := Run(t.Context(), s, ledger, config()); !errors.Is(err, broken) {
		t.Errorf("Run = %v, want %v", err, broken)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, s, s.ledger, config()); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want %v", err, context.Canceled)
	}
}

func TestUnlikeNamesTheMembers(t *testing.T) {
	a := &client.Order{ID: "o", State: "confirmed", Revision: 3}
	b := &client.Order{ID: "o", State: "canceled", Revision: 4, Reason: "why"}
	expected, found := unlike(a, b)
	if want := `revision 3, state "confirmed", no reason`; expected != want {
		t.Errorf("unlike: expected %q, want %q", expected, want)
	}
	if want := `revision 4, state "canceled", reason "why"`; found != want {
		t.Errorf("unlike: found %q, want %q", found, want)
	}
}

// What an operator has decided need not be what the provider has done: it is shown, and is no difference. What he has not decided is one.
func TestWhatAnOperatorHasResolvedIsNoDifference(t *testing.T) {
	resolve := func(h handle, kind, state string) {
		p := h.payment()
		for i := range p.Operations {
			if p.Operations[i].Kind == kind {
				p.Operations[i].State, p.Operations[i].Code = state, "resolved by kim"
			}
		}
	}
	without := func(s *shop, h handle, kind string) {
		s.charges = slices.DeleteFunc(s.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID && c.Kind == kind })
	}
	again := func(s *shop, h handle, kind, key string) {
		c := s.charges[slices.IndexFunc(s.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID && c.Kind == kind })]
		c.Key = key
		s.charges = append(s.charges, c)
	}
	for _, test := range []struct {
		name                  string
		do                    func(s *shop, h handle)
		resolved, differences int
	}{
		{"the provider has it too", func(s *shop, h handle) { resolve(h, "capture", "succeeded") }, 0, 0},
		{"the provider has not charged what was paid in cash", func(s *shop, h handle) {
			resolve(h, "capture", "succeeded")
			without(s, h, "refund")
			resolve(h, "refund", "succeeded")
			without(s, h, "capture")
		}, 1, 0},
		{"the provider has done it under another key", func(s *shop, h handle) {
			resolve(h, "refund", "succeeded")
			again(s, h, "refund", "another")
			i := slices.IndexFunc(s.charges, func(c Charge) bool { return c.PaymentID == h.payment().ID && c.Kind == "refund" })
			s.charges = slices.Delete(s.charges, i, i+1)
		}, 1, 0},
		{"the provider has paid out twice what was done once", func(s *shop, h handle) {
			resolve(h, "refund", "succeeded")
			again(s, h, "refund", "another")
		}, 0, 1},
		{"nobody has decided about the capture", func(s *shop, h handle) {
			resolve(h, "refund", "succeeded")
			without(s, h, "refund")
			without(s, h, "capture")
		}, 0, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, orders := example()
			test.do(s, orders["returned"])
			for i := range s.charges { // as a ledger numbers its rows
				s.charges[i].Seq = uint64(i) + 1
			}
			if r := run(t, s, config()); len(r.Resolved) != test.resolved || len(r.Differences) != test.differences {
				t.Errorf("resolved %v, differences %v; want %d and %d", r.Resolved, r.Differences, test.resolved, test.differences)
			}
		})
	}
}
