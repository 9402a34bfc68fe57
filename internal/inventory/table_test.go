package inventory

import (
	"fmt"
	"strings"
	"testing"

	"hanse/api/inventorypb"
	"hanse/internal/golden"
	"hanse/internal/id"
	"hanse/internal/reject"
)

// A hold of one SKU "A" is brought into each state, in each variant that the table tells apart.
// Before: 10 on hand. The hold asks for 4. The free-standing ones have the ID of a reservation, the others an order's.
var variants = []struct {
	name  string
	state State
	make  func(b Books, id string)
}{
	{"unheard of", None, func(Books, string) {}},
	{"unheard of, free-standing", None, func(Books, string) {}},
	{"beside 7 tentative", None, func(b Books, _ string) { tentative(b, "other", 7) }},
	{"held", Held, func(b Books, id string) { reserve(b, id, 4) }},
	{"free-standing", Held, func(b Books, id string) {
		Reserve(b, &inventorypb.Reserve{HoldId: id, Demands: demand("A", 4), Due: 50, FreeStanding: true}, 1)
	}},
	{"tentative", Tentative, func(b Books, id string) { tentative(b, id, 4) }},
	{"tentative, partly released", Tentative, func(b Books, id string) {
		tentative(b, id, 4)
		Release(b, &inventorypb.Release{HoldId: id, Op: "r0", Demands: demand("A", 1)}, 1)
	}},
	{"allocated", Allocated, func(b Books, id string) { reserve(b, id, 4); Allocate(b, &inventorypb.Allocate{HoldId: id}, 1) }},
	{"half fulfilled", Allocated, func(b Books, id string) { reserve(b, id, 4); fulfill(b, id, "f1", 2) }},
	{"short", Refused, func(b Books, id string) { reserve(b, id, 11) }},
	{"of an unknown SKU", Refused, func(b Books, id string) {
		Reserve(b, &inventorypb.Reserve{HoldId: id, Demands: demand("B", 4)}, 1)
	}},
	{"void", Void, func(b Books, id string) { Release(b, &inventorypb.Release{HoldId: id}, 1) }},
	{"released", Released, func(b Books, id string) { reserve(b, id, 4); Release(b, &inventorypb.Release{HoldId: id}, 1) }},
	{"expired", Expired, func(b Books, id string) {
		Reserve(b, &inventorypb.Reserve{HoldId: id, Demands: demand("A", 4), Due: 50, FreeStanding: true}, 1)
		Due(b, id, 50)
	}},
	{"not placed after all", Expired, func(b Books, id string) { tentative(b, id, 4); Unwanted(b, id, 50) }},
	{"consumed", Consumed, func(b Books, id string) { reserve(b, id, 4); fulfill(b, id, "f1", 4) }},
	{"consumed and partly released", Consumed, func(b Books, id string) {
		reserve(b, id, 4)
		fulfill(b, id, "f1", 3)
		Release(b, &inventorypb.Release{HoldId: id, Op: "r1", Demands: demand("A", 1)}, 1)
	}},
}

func demand(sku string, quantity int64) []*inventorypb.Demand {
	return []*inventorypb.Demand{{Sku: sku, Quantity: quantity, Line: 1}}
}

func reserve(b Books, id string, quantity int64) (*Hold, *reject.Rejection) {
	h, _, r := Reserve(b, &inventorypb.Reserve{HoldId: id, Demands: demand("A", quantity)}, 1)
	return h, r
}

func tentative(b Books, id string, quantity int64) (*Hold, *reject.Rejection) {
	h, _, r := Reserve(b, &inventorypb.Reserve{HoldId: id, Demands: demand("A", quantity), Tentative: 49}, 1)
	return h, r
}

func fulfill(b Books, id, op string, quantity int64) (*Hold, *reject.Rejection) {
	return Fulfill(b, &inventorypb.Fulfill{HoldId: id, Op: op, Demands: demand("A", quantity)}, 1)
}

// The attempts that are made in each state.
var attempts = []struct {
	name string
	on   Op
	do   func(b Books, id string) *reject.Rejection
}{
	{"reserve 4", OnReserve, func(b Books, id string) *reject.Rejection { return second(reserve(b, id, 4)) }},
	{"reserve 11", OnReserve, func(b Books, id string) *reject.Rejection { return second(reserve(b, id, 11)) }},
	{"reserve 4 free-standing", OnReserve, func(b Books, id string) *reject.Rejection {
		_, _, r := Reserve(b, &inventorypb.Reserve{HoldId: id, Demands: demand("A", 4), FreeStanding: true}, 1)
		return r
	}},
	{"reserve an unknown SKU", OnReserve, func(b Books, id string) *reject.Rejection {
		_, _, r := Reserve(b, &inventorypb.Reserve{HoldId: id, Demands: demand("B", 4)}, 1)
		return r
	}},
	{"reserve 4 tentatively", OnReserve, func(b Books, id string) *reject.Rejection { return second(tentative(b, id, 4)) }},
	{"reserve 11 tentatively", OnReserve, func(b Books, id string) *reject.Rejection { return second(tentative(b, id, 11)) }},
	{"reserve an unknown SKU tentatively", OnReserve, func(b Books, id string) *reject.Rejection {
		_, _, r := Reserve(b, &inventorypb.Reserve{HoldId: id, Demands: demand("B", 4), Tentative: 49}, 1)
		return r
	}},
	{"reserve late", OnReserve, func(b Books, id string) *reject.Rejection {
		_, _, r := Reserve(b, &inventorypb.Reserve{HoldId: id, Demands: demand("A", 4), Expires: 99}, 100)
		return r
	}},
	{"allocate", OnAllocate, func(b Books, id string) *reject.Rejection {
		return second(Allocate(b, &inventorypb.Allocate{HoldId: id}, 1))
	}},
	{"release", OnRelease, func(b Books, id string) *reject.Rejection {
		return second(Release(b, &inventorypb.Release{HoldId: id}, 1))
	}},
	{"release 1", OnReleasePart, releaseN("r1", 1)},
	{"release 2", OnReleasePart, releaseN("r2", 2)},
	{"release 4", OnReleasePart, releaseN("r4", 4)},
	{"release 5", OnReleasePart, releaseN("r5", 5)},
	{"fulfill 2", OnFulfill, func(b Books, id string) *reject.Rejection { return second(fulfill(b, id, "f2", 2)) }},
	{"fulfill 1", OnFulfill, func(b Books, id string) *reject.Rejection { return second(fulfill(b, id, "f3", 1)) }},
	{"fulfill 4", OnFulfill, func(b Books, id string) *reject.Rejection { return second(fulfill(b, id, "f4", 4)) }},
	{"fulfill 5", OnFulfill, func(b Books, id string) *reject.Rejection { return second(fulfill(b, id, "f5", 5)) }},
	{"fulfill f1 again", OnFulfill, func(b Books, id string) *reject.Rejection { return second(fulfill(b, id, "f1", 4)) }},
	{"restock 1", OnRestock, restockN(1, false)},
	{"restock 1 damaged", OnRestock, restockN(1, true)},
	{"restock 5", OnRestock, restockN(5, false)},
	{"due", OnDue, func(b Books, id string) *reject.Rejection { Due(b, id, 60); return nil }},
	{"unwanted", OnUnwanted, func(b Books, id string) *reject.Rejection { Unwanted(b, id, 60); return nil }},
	{"wanted", OnWanted, func(b Books, id string) *reject.Rejection { Wanted(b, id, 90, 60); return nil }},
}

func second(_ *Hold, r *reject.Rejection) *reject.Rejection { return r }

func releaseN(op string, n int64) func(Books, string) *reject.Rejection {
	return func(b Books, id string) *reject.Rejection {
		return second(Release(b, &inventorypb.Release{HoldId: id, Op: op, Demands: demand("A", n)}, 1))
	}
}

func restockN(n int64, damaged bool) func(Books, string) *reject.Rejection {
	return func(b Books, id string) *reject.Rejection {
		return second(Restock(b, &inventorypb.Restock{HoldId: id, Op: "t1", Demands: demand("A", n), Damaged: damaged}, 1))
	}
}

// Units that may come back at any moment refuse nobody: who needs them is neither refused nor served until it is known whose they are.
func TestWhatIsTentativeRefusesNobody(t *testing.T) {
	for name, test := range map[string]struct {
		settle func(b Books)
		code   string
	}{
		"its order was not placed": {func(b Books) { Unwanted(b, "o1", 1) }, ""},
		"its order was placed":     {func(b Books) { Wanted(b, "o1", 90, 1) }, reject.OutOfStock},
		"its order is confirmed":   {func(b Books) { Allocate(b, &inventorypb.Allocate{HoldId: "o1"}, 1) }, reject.OutOfStock},
		"its order reserves":       {func(b Books) { reserve(b, "o1", 7) }, reject.OutOfStock},
		"its order is canceled":    {func(b Books) { Release(b, &inventorypb.Release{HoldId: "o1"}, 1) }, ""},
	} {
		b := newBooks()
		Receive(b, &inventorypb.Receive{Sku: "A", Quantity: 10}, 1)
		tentative(b, "o1", 7)
		if _, r := reserve(b, "o2", 11); code(r) != reject.OutOfStock {
			t.Errorf("11 of 10: %v, want %s whatever becomes of the 7", r, reject.OutOfStock)
		}
		if _, r := tentative(b, "o3", 4); code(r) != reject.OutOfStock || stateOf(b, "o3") != None {
			t.Errorf("4 tentatively: %v and %s, want it refused without a trace", r, StateName(stateOf(b, "o3")))
		}
		before := b.clone()
		h, taken, r := Reserve(b, &inventorypb.Reserve{HoldId: "o4", Demands: demand("A", 4)}, 1)
		item, _ := b.Item("A", DefaultLocation)
		if h != nil || taken || r != nil || len(b.holds) != len(before.holds) || item.Reserved != 7 || item.Contested != 1+contestedTime {
			t.Errorf("4 while 7 of 10 are tentative: %v, %v, %v, item %v; want no answer, and nothing but that it is contested", h, taken, r, item)
		}
		if _, r := tentative(b, "o5", 1); code(r) != reject.OutOfStock {
			t.Errorf("1 of 3 tentatively while somebody waits: %v, want it refused", r)
		}
		if _, r := reserve(b, "o6", 1); r != nil {
			t.Errorf("1 of 3 by an order on record while somebody waits: %v", r)
		}
		Release(b, &inventorypb.Release{HoldId: "o6"}, 1)
		test.settle(b)
		if _, r := reserve(b, "o4", 4); code(r) != test.code {
			t.Errorf("%s: 4 more are answered %v, want code %q", name, r, test.code)
		}
		if _, _, r := Reserve(b, &inventorypb.Reserve{HoldId: "o7", Demands: demand("A", 1), Tentative: 49}, 1+contestedTime); r != nil {
			t.Errorf("%s: 1 tentatively when nobody waits any more: %v", name, r)
		}
		balanced(t, b)
	}
}

// Requests wait for it as orders do, when they say that they can.
func TestRequestsAwaitWhatIsTentative(t *testing.T) {
	for name, request := range map[string]struct {
		code string // of its refusal
		do   func(b Books, quantity int64, await bool) (done bool, r *reject.Rejection)
	}{
		"adjustment": {reject.StockNegative, func(b Books, quantity int64, await bool) (bool, *reject.Rejection) {
			i, r := Adjust(b, &inventorypb.Adjust{Sku: "A", Quantity: -quantity, AwaitTentative: await}, 1)
			return i != nil, r
		}},
		"reservation": {reject.OutOfStock, func(b Books, quantity int64, await bool) (bool, *reject.Rejection) {
			h, _, r := Reserve(b, &inventorypb.Reserve{HoldId: id.Reservation + "_1", FreeStanding: true, Demands: demand("A", quantity), AwaitTentative: await}, 1)
			return h != nil && h.State == Held, r
		}},
	} {
		for _, test := range []struct {
			name     string
			quantity int64
			await    bool
			settle   func(b Books)
			open     bool   // not answered before that
			code     string // in the end
		}{
			{"enough", 3, true, nil, false, ""},
			{"more than there is", 11, true, nil, false, request.code},
			{"it cannot wait", 4, false, nil, false, request.code},
			{"the order is not placed", 4, true, func(b Books) { Unwanted(b, "o1", 1) }, true, ""},
			{"the order is placed", 4, true, func(b Books) { Wanted(b, "o1", 90, 1) }, true, request.code},
		} {
			b := newBooks()
			Receive(b, &inventorypb.Receive{Sku: "A", Quantity: 10}, 1)
			tentative(b, "o1", 7)
			done, r := request.do(b, test.quantity, test.await)
			if open := !done && r == nil; open != test.open {
				t.Errorf("%s, %s: answered %v, %v; want it open: %v", name, test.name, done, r, test.open)
			}
			if item, _ := b.Item("A", DefaultLocation); (item.Contested > 1) != test.open || len(b.holds) != 1 && test.open || len(b.movements) != 1 && test.open {
				t.Errorf("%s, %s: item %v, holds %v, movements %v; want nothing but that it is contested while it waits", name, test.name, item, b.holds, b.movements)
			}
			if test.settle != nil {
				test.settle(b)
				done, r = request.do(b, test.quantity, test.await)
			}
			if code(r) != test.code || done != (test.code == "") {
				t.Errorf("%s, %s: answered %v, %v in the end, want code %q", name, test.name, done, r, test.code)
			}
			balanced(t, b)
		}
	}
}

func TestEveryPairDoesWhatTheTableSays(t *testing.T) {
	type outcome struct {
		from State
		on   Op
		to   State
		code string
	}
	listed := map[outcome]bool{} // false until it was seen
	for _, r := range Transitions() {
		listed[outcome{r.From, r.On, r.To, r.Code}] = false
	}
	for _, from := range States() {
		for _, on := range Ops() {
			if len(rules[from][on].rows) == 0 {
				t.Errorf("table R has no row for %s × %s", StateName(from), on)
			}
		}
	}
	got := &strings.Builder{}
	for _, v := range variants {
		for _, a := range attempts {
			b := newBooks()
			Receive(b, &inventorypb.Receive{Sku: "A", Quantity: 10}, 1)
			holdID := "h"
			if strings.Contains(v.name, "free-standing") || v.name == "expired" {
				holdID = id.Reservation + "_h"
			}
			v.make(b, holdID)
			if s := stateOf(b, holdID); s != v.state {
				t.Fatalf("%s is %s, want %s", v.name, StateName(s), StateName(v.state))
			}
			before := b.clone()
			r := a.do(b, holdID)
			o := outcome{v.state, a.on, stateOf(b, holdID), ""}
			if r != nil {
				o.code = r.Code
				if o.to == o.from && !b.equal(before) {
					t.Errorf("%s, %s: refused with %s, and yet something changed", v.name, a.name, r.Code)
				}
			}
			if _, ok := listed[o]; !ok {
				t.Errorf("%s, %s: became %s with code %q, which table R does not list", v.name, a.name, StateName(o.to), o.code)
			}
			listed[o] = true
			balanced(t, b)

			// The same again: the same answer, and nothing more happens. A repetition under an operation ID that
			// was refused is decided anew, and so is what was never remembered.
			after := b.clone()
			if again := a.do(b, holdID); code(again) != o.code {
				t.Errorf("%s, %s twice: first %q, then %q", v.name, a.name, o.code, code(again))
			}
			if !b.equal(after) {
				t.Errorf("%s, %s twice: the repetition changed something", v.name, a.name)
			}
			i, _ := b.Item("A", DefaultLocation)
			fmt.Fprintf(got, "%-30s %-24s %-10s %-22s on_hand %2d reserved %d allocated %d unavailable %d\n",
				v.name, a.name, StateName(o.to), o.code, i.OnHand, i.Reserved, i.Allocated, i.Unavailable)
		}
	}
	for o, seen := range listed {
		if !seen {
			t.Errorf("no attempt shows %s × %s → %s %q", StateName(o.from), o.on, StateName(o.to), o.code)
		}
	}
	golden.Compare(t, "testdata/pairs.golden", got.String())
}

func TestTableForTheDocumentation(t *testing.T) { golden.Compare(t, "testdata/table.golden", Table()) }

func stateOf(b Books, id string) State {
	if h, ok := b.Hold(id); ok {
		return h.State
	}
	return None
}

func code(r *reject.Rejection) string {
	if r == nil {
		return ""
	}
	return r.Code
}

// balanced checks the invariants of the package over all books, from scratch.
func balanced(t interface{ Errorf(string, ...any) }, b *memoryBooks) {
	type sums struct{ reserved, tentative, allocated, onHand int64 }
	want := map[[2]string]*sums{}
	for k := range b.items {
		want[k] = &sums{}
	}
	for _, h := range b.holds {
		for _, l := range h.Lines {
			s, ok := want[[2]string{l.Sku, h.Location}]
			if !ok {
				continue // a refused demand for an unknown SKU
			}
			switch h.State {
			case Tentative:
				s.tentative += l.Quantity - l.Fulfilled - l.Released
				s.reserved += l.Quantity - l.Fulfilled - l.Released
			case Held:
				s.reserved += l.Quantity - l.Fulfilled - l.Released
			case Allocated:
				s.allocated += l.Quantity - l.Fulfilled - l.Released
			case Refused:
			default:
				if l.Quantity != l.Fulfilled+l.Released {
					t.Errorf("hold %s is %s with a rest: %v", h.Id, h.State, l)
				}
			}
			s.onHand += l.Restocked - l.Fulfilled
			if l.Fulfilled < 0 || l.Released < 0 || l.Restocked < 0 || l.Restocked > l.Fulfilled {
				t.Errorf("hold %s has line %v", h.Id, l)
			}
		}
	}
	for _, m := range b.movements {
		want[[2]string{m.Sku, m.Location}].onHand += m.Quantity
	}
	for k, i := range b.items {
		w := want[k]
		if i.Reserved != w.reserved || i.Tentative != w.tentative || i.Allocated != w.allocated || i.OnHand != w.onHand {
			t.Errorf("item %v: reserved %d, tentative %d, allocated %d, on hand %d; holds and movements say %+v",
				k, i.Reserved, i.Tentative, i.Allocated, i.OnHand, *w)
		}
		if Available(i) < 0 || i.Tentative < 0 || i.Reserved < 0 || i.Allocated < 0 || i.Unavailable < 0 || i.OnHand < 0 {
			t.Errorf("item %v is negative: %v", k, i)
		}
	}
}
