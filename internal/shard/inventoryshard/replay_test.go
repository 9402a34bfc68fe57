package inventoryshard_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/internal/hlc"
	"hanse/internal/inventory"
	"hanse/internal/proptest"
	"hanse/internal/shard"
	"hanse/internal/shardtest"
)

// A machine that crashes is as good as one that never stops. At any time a hold that is
// held until a due time has a timer or an unanswered question, a tentative one a question, and the movements add up to what is on hand.
func TestSnapshotAndTailAreTheWholeLog(t *testing.T) {
	seen := map[string]int{}
	missing := func() []string { return proptest.Unseen(seen, "an order is asked") }
	proptest.Reach(t, missing, func(rt *rapid.T) {
		whole, crashes := newDesk(t), newDesk(t)
		shardtest.Replay(rt, whole.Machine, crashes.Machine, func() shard.Entry { return randomEntry(rt, whole) }, func(a shard.Applied) {
			seen["an order is asked"] += len(a.Emitted)
			sound(rt, whole)
		})
	})
}

// randomEntry draws an entry with some commands. Time goes on by up to 30 s.
func randomEntry(t *rapid.T, d *desk) shard.Entry {
	d.now += rapid.Int64Range(0, 30_000).Draw(t, "time")
	e := shard.Entry{Time: hlc.FromMillis(d.now)}
	for range rapid.IntRange(1, 3).Draw(t, "commands") {
		e.Commands = append(e.Commands, randomCommand(t, d))
	}
	return e
}

func randomCommand(t *rapid.T, d *desk) shard.Command {
	sku := rapid.SampledFrom([]string{"A", "A", "B", "C"})
	hold := holdID(rapid.SampledFrom([]string{"o1", "o2", "o3", "o4", "o5", "r1", "r2", "r3"}).Draw(t, "hold"))
	location := rapid.SampledFrom([]string{"", "", "", "north"}).Draw(t, "location")
	op := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "op")
	demands := func() []*inventorypb.Demand {
		return []*inventorypb.Demand{{Sku: sku.Draw(t, "sku"), Quantity: rapid.Int64Range(1, 4).Draw(t, "quantity"), Line: 1}}
	}
	c := &inventorypb.Command{}
	switch rapid.IntRange(0, 13).Draw(t, "command") {
	case 0, 1:
		c.Body = &inventorypb.Command_Receive{Receive: &inventorypb.Receive{
			Sku: sku.Draw(t, "sku"), Location: location, Quantity: rapid.Int64Range(1, 9).Draw(t, "quantity"),
		}}
	case 2:
		c.Body = &inventorypb.Command_Adjust{Adjust: &inventorypb.Adjust{
			Sku: sku.Draw(t, "sku"), Location: location, Quantity: rapid.Int64Range(-3, 3).Draw(t, "quantity"), AwaitTentative: rapid.Bool().Draw(t, "await"),
		}}
	case 3, 4, 5:
		free := strings.HasPrefix(hold, "rsv_")
		tentative := rapid.SampledFrom([]int64{0, 5_000}).Draw(t, "tentative")
		if free {
			tentative = 0
		}
		c.Body = &inventorypb.Command_Reserve{Reserve: &inventorypb.Reserve{
			HoldId: hold, Location: location, Demands: demands(), FreeStanding: free,
			Due:       rapid.SampledFrom([]int64{0, d.now + 20_000, d.now + 60_000}).Draw(t, "due"),
			Tentative: tentative, AwaitTentative: free && rapid.Bool().Draw(t, "await"),
		}}
	case 6:
		c.Body = &inventorypb.Command_Allocate{Allocate: &inventorypb.Allocate{HoldId: hold}}
	case 7:
		c.Body = &inventorypb.Command_Release{Release: &inventorypb.Release{HoldId: hold}}
	case 8:
		c.Body = &inventorypb.Command_Release{Release: &inventorypb.Release{HoldId: hold, Op: op, Demands: demands()}}
	case 9:
		c.Body = &inventorypb.Command_Fulfill{Fulfill: &inventorypb.Fulfill{HoldId: hold, Op: op, Demands: demands()}}
	case 10:
		c.Body = &inventorypb.Command_Restock{Restock: &inventorypb.Restock{HoldId: hold, Op: op, Demands: demands()}}
	case 11:
		if open := d.Outbox(); len(open) > 0 {
			m := rapid.SampledFrom(open).Draw(t, "message")
			r := shard.Result{Payload: encode(d.T, &orderpb.HoldAnswer{Keep: rapid.Bool().Draw(t, "keep")})}
			return shard.Command{Kind: shard.KindReply, Payload: shard.EncodeReply(m.Seq, &r)}
		}
		return shard.Command{Kind: shard.KindTick}
	default:
		return shard.Command{Kind: shard.KindTick}
	}
	return shard.Command{Kind: shard.KindLogic, Payload: encode(d.T, c)}
}

// sound checks the promises of the shard from scratch, through its queries.
func sound(t *rapid.T, d *desk) {
	var holds inventorypb.HoldList
	var items inventorypb.ItemList
	var movements inventorypb.MovementList
	read(t, d, &inventorypb.Query{Body: &inventorypb.Query_Holds{Holds: &inventorypb.ScanHolds{Limit: 1000}}}, &holds)
	read(t, d, &inventorypb.Query{Body: &inventorypb.Query_Items{Items: &inventorypb.ScanItems{Limit: 1000}}}, &items)
	read(t, d, &inventorypb.Query{Body: &inventorypb.Query_Movements{Movements: &inventorypb.ListMovements{Limit: 1000}}}, &movements)

	type sums struct{ onHand, reserved, tentative, allocated int64 }
	want := make(map[[2]string]*sums)
	for _, i := range items.Items {
		want[[2]string{i.Sku, i.Location}] = &sums{}
	}
	for n, m := range movements.Movements {
		if m.Seq != uint64(n)+1 {
			t.Fatalf("movement %d has number %d", n+1, m.Seq)
		}
		want[[2]string{m.Sku, m.Location}].onHand += m.Quantity
	}
	earliest := int64(0)
	for _, h := range holds.Holds {
		for _, l := range h.Lines {
			w := want[[2]string{l.Sku, h.Location}]
			if w == nil {
				continue // refused
			}
			w.onHand += l.Restocked - l.Fulfilled
			switch rest := l.Quantity - l.Fulfilled - l.Released; h.State {
			case inventory.Tentative:
				w.reserved += rest
				w.tentative += rest
			case inventory.Held:
				w.reserved += rest
			case inventory.Allocated:
				w.allocated += rest
			}
		}
		isAsked := slices.ContainsFunc(d.Outbox(), func(m *shard.Message) bool { return m.Key == h.Id })
		if (h.State == inventory.Tentative) != (h.Question != 0) || h.Question != 0 && !isAsked {
			t.Fatalf("hold %s is %s, its question is %d, and in the outbox: %v", h.Id, inventory.StateName(h.State), h.Question, isAsked)
		}
		if h.State == inventory.Held && h.Due != 0 && !isAsked && (earliest == 0 || h.Due < earliest) {
			earliest = h.Due
		}
	}
	if next := d.NextDue(); next.Millis() != earliest {
		t.Fatalf("the next tick is wanted at %d, and the first hold without a question is due at %d", next.Millis(), earliest)
	}
	for _, i := range items.Items {
		if w := want[[2]string{i.Sku, i.Location}]; i.OnHand != w.onHand || i.Reserved != w.reserved || i.Tentative != w.tentative || i.Allocated != w.allocated || inventory.Available(i) < 0 {
			t.Fatalf("%v, want %+v by holds and movements", i, *w)
		}
	}
}

func read(t *rapid.T, d *desk, q *inventorypb.Query, into interface{ UnmarshalVT([]byte) error }) {
	r := d.Query(encode(d.T, q))
	if !r.OK() {
		t.Fatalf("query %v: %s", q, r.Code)
	}
	if err := into.UnmarshalVT(r.Payload); err != nil {
		t.Fatal(err)
	}
}
