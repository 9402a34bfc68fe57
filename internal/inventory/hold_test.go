package inventory

import (
	"fmt"
	"strings"
	"testing"

	"hanse/api/inventorypb"
	"hanse/internal/reject"
)

// stocked returns books with 10 A, 5 B and the untracked U.
func stocked() *memoryBooks {
	b := newBooks()
	Receive(b, &inventorypb.Receive{Sku: "A", Quantity: 10}, 1)
	Receive(b, &inventorypb.Receive{Sku: "B", Quantity: 5}, 1)
	SetTracking(b, &inventorypb.SetTracking{Sku: "U", Untracked: true})
	return b
}

func TestReserveTakesAllOrNothing(t *testing.T) {
	line := func(n uint32, sku string, quantity int64) *inventorypb.Demand {
		return &inventorypb.Demand{Sku: sku, Quantity: quantity, Line: n}
	}
	for _, test := range []struct {
		name    string
		demands []*inventorypb.Demand
		code    string
		field   string
		a, b    int64 // reserved
	}{
		{"everything there is", []*inventorypb.Demand{line(1, "A", 10), line(2, "B", 5)}, "", "", 10, 5},
		{"two lines of one SKU are one demand", []*inventorypb.Demand{line(1, "A", 6), line(2, "B", 1), line(3, "A", 5)}, reject.OutOfStock, "/lines/0/quantity", 0, 0},
		{"two lines of one SKU that fit", []*inventorypb.Demand{line(1, "A", 6), line(2, "A", 4)}, "", "", 10, 0},
		{"the lowest short line is named", []*inventorypb.Demand{line(1, "A", 1), line(2, "B", 6), line(3, "A", 10)}, reject.OutOfStock, "/lines/0/quantity", 0, 0},
		{"a short line behind a good one", []*inventorypb.Demand{line(1, "A", 1), line(2, "B", 6)}, reject.OutOfStock, "/lines/1/quantity", 0, 0},
		{"an unknown SKU before a short one", []*inventorypb.Demand{line(1, "X", 1), line(2, "B", 6)}, reject.UnknownSKU, "/lines/0/sku", 0, 0},
		{"a short one before an unknown SKU", []*inventorypb.Demand{line(1, "B", 6), line(2, "X", 1)}, reject.OutOfStock, "/lines/0/quantity", 0, 0},
		{"a request without lines", []*inventorypb.Demand{line(0, "A", 11)}, reject.OutOfStock, "/quantity", 0, 0},
		{"untracked ones never run out", []*inventorypb.Demand{line(1, "U", MaxQuantity), line(2, "A", 1)}, "", "", 1, 0},
		{"nothing", nil, reject.InvalidRequest, "", 0, 0},
		{"none of a SKU", []*inventorypb.Demand{line(3, "A", 0)}, reject.InvalidQuantity, "/lines/2/quantity", 0, 0},
		{"less than none", []*inventorypb.Demand{line(1, "A", -1)}, reject.InvalidQuantity, "/lines/0/quantity", 0, 0},
		{"more than can be", []*inventorypb.Demand{line(1, "A", MaxQuantity+1)}, reject.InvalidQuantity, "/lines/0/quantity", 0, 0},
		{"a SKU with a zero byte", []*inventorypb.Demand{line(1, "A\x00main", 1)}, reject.InvalidRequest, "/lines/0/sku", 0, 0},
		{"too many lines", make([]*inventorypb.Demand, MaxDemands+1), reject.TooManyLines, "", 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := stocked()
			_, taken, r := Reserve(b, &inventorypb.Reserve{HoldId: "o1", Demands: test.demands}, 1)
			if code(r) != test.code || r != nil && r.Field != test.field {
				t.Errorf("Reserve = %+v, want code %q at %q", r, test.code, test.field)
			}
			if taken != (test.code == "") {
				t.Errorf("taken is %v", taken)
			}
			a, _ := b.Item("A", DefaultLocation)
			other, _ := b.Item("B", DefaultLocation)
			if a.Reserved != test.a || other.Reserved != test.b {
				t.Errorf("reserved are %d A and %d B, want %d and %d", a.Reserved, other.Reserved, test.a, test.b)
			}
			balanced(t, b)
		})
	}
}

// A hold keeps what it counted when it was made, whatever is said about the item later.
func TestTrackingThatChangesDoesNotUnbalance(t *testing.T) {
	b := stocked()
	track := func(sku string, untracked bool) {
		if _, r := SetTracking(b, &inventorypb.SetTracking{Sku: sku, Untracked: untracked}); r != nil {
			t.Fatal(r)
		}
	}
	both := []*inventorypb.Demand{{Sku: "A", Quantity: 4, Line: 1}, {Sku: "U", Quantity: 7, Line: 2}}
	if _, _, r := Reserve(b, &inventorypb.Reserve{HoldId: "o1", Demands: both}, 1); r != nil {
		t.Fatal(r)
	}
	track("A", true)
	track("U", false)
	if _, _, r := Reserve(b, &inventorypb.Reserve{HoldId: "o2", Demands: []*inventorypb.Demand{{Sku: "U", Quantity: 1, Line: 1}}}, 1); code(r) != reject.OutOfStock {
		t.Errorf("U is tracked now and was never received: %v, want out of stock", r)
	}
	if _, r := Fulfill(b, &inventorypb.Fulfill{HoldId: "o1", Op: "f1", Demands: both}, 1); r != nil {
		t.Errorf("Fulfill = %v", r)
	}
	if _, r := Restock(b, &inventorypb.Restock{HoldId: "o1", Op: "t1", Demands: both}, 1); r != nil {
		t.Errorf("Restock = %v", r)
	}
	balanced(t, b)
	for sku, onHand := range map[string]int64{"A": 10, "U": 0} {
		if i, _ := b.Item(sku, DefaultLocation); i.OnHand != onHand || i.Reserved != 0 || i.Allocated != 0 {
			t.Errorf("%s is %v, want %d on hand and nothing held", sku, i, onHand)
		}
	}
}

func TestMovements(t *testing.T) {
	receive := func(sku, location string, quantity int64, reason string) func(Books) *reject.Rejection {
		return func(b Books) *reject.Rejection {
			_, r := Receive(b, &inventorypb.Receive{Sku: sku, Location: location, Quantity: quantity, Reason: reason}, 1)
			return r
		}
	}
	adjust := func(sku string, quantity int64) func(Books) *reject.Rejection {
		return func(b Books) *reject.Rejection {
			_, r := Adjust(b, &inventorypb.Adjust{Sku: sku, Quantity: quantity}, 1)
			return r
		}
	}
	for _, test := range []struct {
		name string
		do   func(Books) *reject.Rejection
		code string
		a    int64 // on hand at the default location
	}{
		{"receive", receive("A", "", 1, "truck"), "", 11},
		{"receive elsewhere", receive("A", "north", 1, ""), "", 10},
		{"receive nothing", receive("A", "", 0, ""), reject.InvalidQuantity, 10},
		{"receive less", receive("A", "", -1, ""), reject.InvalidQuantity, 10},
		{"receive too much", receive("A", "", MaxQuantity+1, ""), reject.InvalidQuantity, 10},
		{"a name that is too long", receive(strings.Repeat("x", MaxNameBytes+1), "", 1, ""), reject.InvalidRequest, 10},
		{"a location with a control character", receive("A", "a\x01", 1, ""), reject.InvalidRequest, 10},
		{"a reason that is too long", receive("A", "", 1, strings.Repeat("x", MaxReasonBytes+1)), reject.InvalidRequest, 10},
		{"a reason that is no text", receive("A", "", 1, "\xff"), reject.InvalidRequest, 10},
		{"adjust up", adjust("A", 3), "", 13},
		{"adjust by all that is free", adjust("A", -6), "", 4},
		{"adjust into what is held", adjust("A", -7), reject.StockNegative, 10},
		{"adjust by nothing", adjust("A", 0), reject.InvalidQuantity, 10},
		{"adjust what is not there", adjust("X", -1), reject.SKUNotFound, 10},
		{"found where none was known", adjust("X", 1), "", 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := stocked()
			reserve(b, "o1", 4)
			movements := len(b.movements)
			if r := test.do(b); code(r) != test.code {
				t.Errorf("answered %v, want %q", r, test.code)
			}
			if i, _ := b.Item("A", DefaultLocation); i.OnHand != test.a {
				t.Errorf("%d on hand, want %d", i.OnHand, test.a)
			}
			if recorded := len(b.movements) > movements; recorded != (test.code == "") {
				t.Errorf("a movement was recorded: %v", recorded)
			}
			balanced(t, b)
		})
	}
}

func TestAHoldRemembersABoundedNumberOfOperations(t *testing.T) {
	b := newBooks()
	Receive(b, &inventorypb.Receive{Sku: "A", Quantity: 2 * MaxOperations}, 1)
	reserve(b, "h", 2*MaxOperations)
	for n := range MaxOperations {
		if _, r := fulfill(b, "h", fmt.Sprint("f", n), 1); r != nil {
			t.Fatalf("operation %d: %v", n, r)
		}
	}
	if _, r := fulfill(b, "h", "more", 1); code(r) != reject.TooManyObjects {
		t.Errorf("one more: %v, want %s", r, reject.TooManyObjects)
	}
	if _, r := fulfill(b, "h", "f0", 1); r != nil {
		t.Errorf("the first again: %v, want the same answer as before", r)
	}
	if h, r := Release(b, &inventorypb.Release{HoldId: "h"}, 1); r != nil || h.State != Consumed {
		t.Errorf("Release = %v, %v, want the rest to be given back all the same", h, r)
	}
	balanced(t, b)
}

// An order's life at the counters: reserve, allocate, fulfill.
func BenchmarkOrder(b *testing.B) {
	books := newBooks()
	Receive(books, &inventorypb.Receive{Sku: "A", Quantity: MaxQuantity}, 1)
	Receive(books, &inventorypb.Receive{Sku: "B", Quantity: MaxQuantity}, 1)
	demands := []*inventorypb.Demand{{Sku: "A", Quantity: 1, Line: 1}, {Sku: "B", Quantity: 1, Line: 2}}
	b.ReportAllocs()
	for b.Loop() {
		clear(books.holds)
		if _, _, r := Reserve(books, &inventorypb.Reserve{HoldId: "o1", Demands: demands, Due: 50}, 1); r != nil {
			Receive(books, &inventorypb.Receive{Sku: "A", Quantity: MaxQuantity}, 1)
			Receive(books, &inventorypb.Receive{Sku: "B", Quantity: MaxQuantity}, 1)
			continue
		}
		Allocate(books, &inventorypb.Allocate{HoldId: "o1"}, 1)
		Fulfill(books, &inventorypb.Fulfill{HoldId: "o1", Op: "f1", Demands: demands}, 1)
	}
}
