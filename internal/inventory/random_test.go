package inventory

import (
	"testing"

	"pgregory.net/rapid"

	"hanse/api/inventorypb"
	"hanse/internal/id"
	"hanse/internal/proptest"
	"hanse/internal/reject"
)

// Whatever comes in whatever order, and however often: nothing is reserved that is not there, the counters are what holds and
// movements add up to, a refusal changes nothing but to be remembered, and a repetition has the same answer and no effect.
func TestRandomHistoriesConserveStock(t *testing.T) {
	seen := map[string]int{} // states in which holds ended, and codes of refusals
	missing := func() []string {
		want := []string{
			reject.OutOfStock, reject.UnknownSKU, reject.HoldMismatch, reject.HoldCanceled, reject.HoldExpired, reject.HoldNotFound,
			reject.SKUNotFound, reject.MessageExpired,
		}
		for _, s := range States() {
			if s != None {
				want = append(want, StateName(s))
			}
		}
		return proptest.Unseen(seen, want...)
	}
	proptest.Reach(t, missing, func(t *rapid.T) {
		b := newBooks()
		for _, location := range []string{"", "north"} { // nobody has heard of C before it comes by chance
			Receive(b, &inventorypb.Receive{Sku: "A", Location: location, Quantity: 9}, 1)
			Receive(b, &inventorypb.Receive{Sku: "B", Location: location, Quantity: 9}, 1)
		}
		for range rapid.IntRange(60, 160).Draw(t, "steps") {
			name, do := randomCommand(t, b)
			before := b.clone()
			holdsBefore := len(b.holds)
			r := do(b)
			if r != nil {
				seen[r.Code]++
				remembered := len(b.holds) == holdsBefore+1 && (r.Code == reject.OutOfStock || r.Code == reject.UnknownSKU)
				if !remembered && !b.equal(before) {
					t.Fatalf("%s: refused with %s, and yet something changed", name, r.Code)
				}
				for k, i := range b.items {
					if !i.EqualVT(before.items[k]) {
						t.Fatalf("%s: refused with %s, and yet item %v changed", name, r.Code, k)
					}
				}
			}
			balanced(t, b)
			if name == "receive" || name == "adjust" { // these are made once by the idempotency key of their request
				continue
			}
			after := b.clone()
			if again := do(b); code(again) != code(r) {
				t.Fatalf("%s: answered %q, and repeated %q", name, code(r), code(again))
			}
			if !b.equal(after) {
				t.Fatalf("%s: the repetition changed something", name)
			}
		}
		for _, h := range b.holds {
			seen[StateName(h.State)]++
		}
	})
}

// randomCommand draws from few names, so that commands meet; it can be done more than once.
func randomCommand(t *rapid.T, b *memoryBooks) (name string, do func(Books) *reject.Rejection) {
	const now = 100
	sku := rapid.SampledFrom([]string{"A", "A", "A", "B", "B", "C"})
	location := rapid.SampledFrom([]string{"", "", "north"}).Draw(t, "location")
	hold := rapid.SampledFrom([]string{"o1", "o2", "o3", "o4", "o5", id.Reservation + "_1", id.Reservation + "_2", id.Reservation + "_3"}).Draw(t, "hold")
	op := rapid.SampledFrom([]string{"x", "y", "z", "zz"}).Draw(t, "op")
	demands := func() (list []*inventorypb.Demand) {
		for line := range rapid.IntRange(1, 3).Draw(t, "lines") {
			list = append(list, &inventorypb.Demand{Sku: sku.Draw(t, "sku"), Quantity: rapid.Int64Range(1, 4).Draw(t, "quantity"), Line: uint32(line + 1)})
		}
		return list
	}
	// kept lists what the hold has, mostly: random demands alone would hardly ever end one.
	kept := func() []*inventorypb.Demand {
		h, ok := b.Hold(hold)
		if !ok || rapid.IntRange(0, 3).Draw(t, "other") == 0 {
			return demands()
		}
		var list []*inventorypb.Demand
		for _, l := range h.Lines {
			if n := l.Quantity - l.Fulfilled - l.Released; n > 0 {
				list = append(list, &inventorypb.Demand{Sku: l.Sku, Quantity: n, Line: 1})
			}
		}
		if len(list) == 0 {
			return demands()
		}
		return list
	}
	name = rapid.SampledFrom([]string{
		"receive", "receive", "receive", "adjust", "tracking", "reserve", "reserve", "reserve", "reserve", "allocate", "release", "release part", "fulfill", "fulfill",
		"restock", "due", "unwanted", "wanted",
	}).Draw(t, "command")
	switch name {
	case "receive":
		c := &inventorypb.Receive{Sku: sku.Draw(t, "sku"), Location: location, Quantity: rapid.Int64Range(1, 8).Draw(t, "quantity")}
		do = func(b Books) *reject.Rejection { _, r := Receive(b, c, now); return r }
	case "adjust":
		c := &inventorypb.Adjust{Sku: sku.Draw(t, "sku"), Location: location, Quantity: rapid.SampledFrom([]int64{-3, -1, 2}).Draw(t, "quantity"), AwaitTentative: rapid.Bool().Draw(t, "await")}
		do = func(b Books) *reject.Rejection { _, r := Adjust(b, c, now); return r }
	case "tracking":
		c := &inventorypb.SetTracking{Sku: sku.Draw(t, "sku"), Location: location, Untracked: rapid.Bool().Draw(t, "untracked")}
		do = func(b Books) *reject.Rejection { _, r := SetTracking(b, c); return r }
	case "reserve":
		c := &inventorypb.Reserve{
			HoldId: hold, Location: location, Demands: demands(), FreeStanding: hold[0] != 'o', Due: 50,
			Expires:   rapid.SampledFrom([]int64{0, 0, 0, now, now - 1}).Draw(t, "expires"),
			Tentative: rapid.SampledFrom([]int64{0, 5}).Draw(t, "tentative"), AwaitTentative: rapid.Bool().Draw(t, "await"),
		}
		do = func(b Books) *reject.Rejection { _, _, r := Reserve(b, c, now); return r }
	case "allocate":
		do = func(b Books) *reject.Rejection { return second(Allocate(b, &inventorypb.Allocate{HoldId: hold}, now)) }
	case "release":
		do = func(b Books) *reject.Rejection { return second(Release(b, &inventorypb.Release{HoldId: hold}, now)) }
	case "release part":
		c := &inventorypb.Release{HoldId: hold, Op: op, Demands: kept()}
		do = func(b Books) *reject.Rejection { return second(Release(b, c, now)) }
	case "fulfill":
		c := &inventorypb.Fulfill{HoldId: hold, Op: op, Demands: kept()}
		do = func(b Books) *reject.Rejection { return second(Fulfill(b, c, now)) }
	case "restock":
		c := &inventorypb.Restock{HoldId: hold, Op: op, Demands: demands(), Damaged: rapid.Bool().Draw(t, "damaged")}
		do = func(b Books) *reject.Rejection { return second(Restock(b, c, now)) }
	case "due":
		do = func(b Books) *reject.Rejection { Due(b, hold, now); return nil }
	case "unwanted":
		do = func(b Books) *reject.Rejection { Unwanted(b, hold, now); return nil }
	case "wanted":
		do = func(b Books) *reject.Rejection { Wanted(b, hold, 60, now); return nil }
	}
	return name, do
}

// An order's messages may come in any order, each any number of times: what remains depends on which of release and reserve came
// first, and nothing stays reserved after a release.
func TestReleaseInAnyOrderLeavesNothingReserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBooks()
		Receive(b, &inventorypb.Receive{Sku: "A", Quantity: 10}, 1)
		messages := map[string]func(){
			"reserve":  func() { reserve(b, "o1", 4) },
			"allocate": func() { Allocate(b, &inventorypb.Allocate{HoldId: "o1"}, 1) },
			"release":  func() { Release(b, &inventorypb.Release{HoldId: "o1"}, 1) },
		}
		released := false
		for _, name := range rapid.SliceOfN(rapid.SampledFrom([]string{"reserve", "allocate", "release"}), 1, 12).Draw(t, "messages") {
			messages[name]()
			released = released || name == "release"
			balanced(t, b)
			if i, _ := b.Item("A", DefaultLocation); released && Available(i) != 10 {
				t.Fatalf("after a release %d of 10 are available", Available(i))
			}
		}
	})
}
