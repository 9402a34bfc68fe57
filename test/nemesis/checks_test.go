package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"hanse/client"
	"hanse/internal/psp"
)

// history numbers operations on one key; each takes from its place in the list to one place further, unless it says otherwise.
func history(ops ...keyOp) []keyOp {
	for i := range ops {
		o := &ops[i]
		o.Key, o.Client = "k", i
		if o.Ret == 0 {
			o.Call, o.Ret = time.Duration(10*i), time.Duration(10*i+5)
		}
	}
	return ops
}

func TestRegisterModel_finds_what_no_order_explains(t *testing.T) {
	wrote := func(value string, version uint64) keyOp { return keyOp{Verb: put, Value: value, GotVersion: version} }
	read := func(value string, version uint64) keyOp {
		return keyOp{Verb: get, GotValue: value, GotVersion: version}
	}
	absent := keyOp{Verb: get, Code: "key_not_found"}
	lostAnswer := keyOp{Verb: put, Value: "b", Unknown: true}
	for name, c := range map[string]struct {
		ops  []keyOp
		want porcupine.CheckResult
	}{
		"reads see writes":                {history(absent, wrote("a", 1), read("a", 1), wrote("b", 2), read("b", 2)), porcupine.Ok},
		"stale read":                      {history(wrote("a", 1), wrote("b", 2), read("a", 1)), porcupine.Illegal},
		"lost write":                      {history(wrote("a", 1), absent), porcupine.Illegal},
		"lost write, by its version":      {history(wrote("a", 1), wrote("b", 1)), porcupine.Illegal},
		"a value nobody wrote":            {history(wrote("a", 1), read("z", 1)), porcupine.Illegal},
		"without an answer, it came":      {history(wrote("a", 1), lostAnswer, read("b", 2)), porcupine.Ok},
		"without an answer, it did not":   {history(wrote("a", 1), lostAnswer, read("a", 1)), porcupine.Ok},
		"without an answer, it came late": {history(wrote("a", 1), lostAnswer, read("a", 1), read("b", 2)), porcupine.Ok},
		"without an answer, and undone":   {history(wrote("a", 1), lostAnswer, read("b", 2), read("a", 1)), porcupine.Illegal},
		"two of two at once":              {history(keyOp{Verb: put, Value: "a", GotVersion: 2, Call: 1, Ret: 9}, keyOp{Verb: put, Value: "b", GotVersion: 1, Call: 1, Ret: 9}, read("a", 2)), porcupine.Ok},
		"compare-and-set":                 {history(keyOp{Verb: cas, Value: "a", GotVersion: 1}, keyOp{Verb: cas, Value: "b", Expected: 1, GotVersion: 2}, keyOp{Verb: cas, Value: "c", Expected: 1, Code: "version_mismatch"}), porcupine.Ok},
		"both win":                        {history(keyOp{Verb: cas, Value: "a", GotVersion: 1}, keyOp{Verb: cas, Value: "b", GotVersion: 2}), porcupine.Illegal},
		"refused without a reason":        {history(wrote("a", 1), keyOp{Verb: cas, Value: "b", Expected: 1, Code: "version_mismatch"}), porcupine.Illegal},
		"deleted":                         {history(wrote("a", 1), keyOp{Verb: remove, GotVersion: 2}, absent, keyOp{Verb: remove, Code: "key_not_found"}, wrote("b", 3)), porcupine.Ok},
		"deleted, and there":              {history(wrote("a", 1), keyOp{Verb: remove, GotVersion: 2}, read("a", 1)), porcupine.Illegal},
		"an answer that does not fit":     {history(keyOp{Verb: put, Value: "a", Code: "value_too_large"}), porcupine.Illegal},
	} {
		if got, _ := porcupine.CheckOperationsVerbose(registerModel, operations(c.ops), time.Minute); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestSettles(t *testing.T) {
	for err, want := range map[error]certainty{
		nil: done,
		&client.Error{Status: 404, Code: "key_not_found"}:                done,
		&client.Error{Status: 503, Code: "unavailable", Retryable: true}: never,
		&client.Error{Status: 429, Code: "overloaded", Retryable: true}:  never,
		&client.Error{Status: 504, Code: "outcome_unknown"}:              perhaps,
		&client.Error{Status: 500, Code: "internal"}:                     perhaps,
		fmt.Errorf("%w: reset", client.ErrUnavailable):                   perhaps,
	} {
		if got, _ := settles(err); got != want {
			t.Errorf("settles(%v) = %d, want %d", err, got, want)
		}
	}
}

// Unknown writes stay, failed reads do not, and their client gets a new number.
func TestKeyBook(t *testing.T) {
	b := newKeyBook()
	id := b.newClient()
	write := keyOp{Client: id, Key: "nemesis/1", Verb: put, Value: "v"}
	next := b.end(write, perhaps)
	if next == id {
		t.Error("a client goes on under its number after an unknown outcome")
	}
	if after := b.end(keyOp{Client: next, Key: "nemesis/1", Verb: get}, perhaps); after == next {
		t.Error("a client whose read failed goes on under its number")
	}
	b.end(keyOp{Client: next, Key: "nemesis/1", Verb: put}, never)
	if ops := b.ops["nemesis/1"]; len(ops) != 1 || !ops[0].Unknown || ops[0].Verb != put {
		t.Errorf("history %+v, want the unknown write alone", ops)
	}
}

// books are a sale, its order and the provider's operations, all as they should be: shipped and partly refunded.
func books() (*sale, client.Order, []*psp.Operation) {
	s := &sale{
		Reference: "r1", Customer: "ann", ID: "ord_1", Told: "confirmed", Placed: request{Outcome: accepted}, Fulfill: request{Outcome: accepted},
		Refund: request{Outcome: accepted, Amount: 300}, Order: client.PlaceOrder{Lines: []client.NewLine{{SKU: "a", Quantity: 2, UnitPrice: 500}}},
	}
	o := client.Order{
		ID: "ord_1", MerchantReference: "r1", CustomerID: "ann", Total: 1000, State: "fulfilled", Payment: client.OrderPayment{Authorized: 1000, Captured: 1000, Refunded: 300},
		Fulfillments: []client.Fulfillment{{}}, Refunds: []client.Refund{{Amount: 300, Done: true}},
	}
	return s, o, []*psp.Operation{
		{Key: "1", OrderID: "ord_1", Kind: "authorize", Amount: 1000}, {Key: "2", OrderID: "ord_1", Kind: "capture", Amount: 1000},
		{Key: "3", OrderID: "ord_1", Kind: "refund", Amount: 300}, {Key: "4", OrderID: "ord_1", Kind: "authorize", Amount: 7, Declined: true},
	}
}

func TestJudge_finds_what_is_planted(t *testing.T) {
	type world struct {
		sales  []*sale
		orders []client.Order
		ledger []*psp.Operation
	}
	for name, c := range map[string]struct {
		plant func(*world)
		want  string // of lost, unfinished or charged; empty for none
	}{
		"nothing":    {func(*world) {}, ""},
		"lost order": {func(w *world) { w.orders = nil }, "lost: r1: order ord_1 was acknowledged and is not there"},
		"two orders for one request": {func(w *world) {
			second := w.orders[0]
			second.ID = "ord_2"
			w.orders = append(w.orders, second)
		}, "lost: r1: one request, 2 orders"},
		"another order": {func(w *world) { w.orders[0].ID = "ord_9" }, "lost: r1: order ord_1 was acknowledged, ord_9 is there"},
		"an order of nobody": {func(w *world) {
			w.orders = append(w.orders, client.Order{ID: "ord_2", MerchantReference: "r2", State: "canceled"})
		}, `lost: order ord_2, reference "r2": nobody has placed it`},
		"another total":          {func(w *world) { w.orders[0].Total = 999 }, "lost: r1: order ord_1 is worth 999"},
		"forgotten shipment":     {func(w *world) { w.orders[0].Fulfillments = nil }, "lost: r1: order ord_1 has 0 shipments"},
		"shipped twice":          {func(w *world) { w.orders[0].Fulfillments = make([]client.Fulfillment, 2) }, "lost: r1: order ord_1 has 2 shipments"},
		"refund forgotten":       {func(w *world) { w.orders[0].Refunds = nil }, "lost: r1: order ord_1 has 0 refunds"},
		"refund under way":       {func(w *world) { w.orders[0].Payment.Refunded, w.ledger = 0, w.ledger[:2] }, "unfinished: order ord_1: 0 refunded, 300 promised"},
		"cancel forgotten":       {func(w *world) { w.sales[0].Cancel.Outcome = accepted }, "lost: r1: order ord_1 is fulfilled, want [canceled]"},
		"refused, and yet there": {func(w *world) { w.sales[0].Placed = request{Outcome: refused, Code: "out_of_stock"} }, "lost: r1: order ord_1 is fulfilled, want [rejected expired]"},
		"under way":              {func(w *world) { w.orders[0].State = "canceling" }, "unfinished: order ord_1 is canceling"},
		"stuck":                  {func(w *world) { w.orders[0].Stuck = []client.StuckStep{{}} }, "unfinished: order ord_1 is fulfilled"},
		"authorized twice":       {func(w *world) { w.ledger[3].Declined = false }, "charged: order ord_1: authorized 2 times"},
		"charged twice":          {func(w *world) { w.ledger = append(w.ledger, w.ledger[1]) }, "charged: order ord_1: worth 1000, captured 2000"},
		"not charged":            {func(w *world) { w.ledger = w.ledger[:1] }, "charged: order ord_1: authorized 1000, captured 1000, refunded 300"},
		"canceled, and not voided": {func(w *world) {
			w.sales[0].Cancel.Outcome, w.sales[0].Fulfill, w.sales[0].Refund = accepted, request{Outcome: refused}, request{}
			w.orders[0].State, w.orders[0].Fulfillments, w.orders[0].Refunds = "canceled", nil, nil
			w.orders[0].Payment, w.ledger = client.OrderPayment{Authorized: 1000}, w.ledger[:1]
		}, "charged: order ord_1: canceled, and of 1000 authorized 0 is given back"},
	} {
		s, o, ledger := books()
		w := &world{[]*sale{s}, []client.Order{o}, ledger}
		c.plant(w)
		v := judge(w.sales, w.orders, ledgerByOrder(w.ledger))
		var found []string
		for kind, list := range map[string][]string{"lost": v.lost, "unfinished": v.unfinished, "charged": v.charged} {
			for _, f := range list {
				found = append(found, kind+": "+f)
			}
		}
		text := strings.Join(found, "\n")
		if c.want == "" && text != "" || !strings.Contains(text, c.want) {
			t.Errorf("%s: found %q, want %q", name, text, c.want)
		}
	}
}

func TestLagging(t *testing.T) {
	at := func(applied, commit, leader uint64) *client.Shards {
		return &client.Shards{Shards: []client.Shard{{ID: "order/0", Applied: applied, Commit: commit, Leader: leader}}}
	}
	for name, c := range map[string]struct {
		answers []*client.Shards
		want    int
	}{
		"equal":       {[]*client.Shards{at(5, 5, 1), at(5, 5, 1)}, 0},
		"behind":      {[]*client.Shards{at(5, 5, 1), at(4, 4, 1)}, 1},
		"not applied": {[]*client.Shards{at(5, 6, 1), at(5, 5, 1)}, 1},
		"no leader":   {[]*client.Shards{at(5, 5, 0), at(5, 5, 1)}, 1},
		"silent":      {[]*client.Shards{at(5, 5, 1), nil}, 1},
	} {
		if got := lagging(c.answers); len(got) != c.want {
			t.Errorf("%s: %q, want %d", name, got, c.want)
		}
	}
}

func TestObserverFindsTwoLeadersOfATerm(t *testing.T) {
	o := newObserver(nil, func() time.Duration { return time.Second })
	shard := func(term, leader uint64) []client.Shard {
		return []client.Shard{{ID: "order/0", Term: term, Leader: leader}}
	}
	o.take(1, shard(1, 1))
	o.take(2, shard(1, 1))
	o.take(2, shard(2, 0)) // nobody yet
	o.take(3, shard(2, 3))
	o.take(1, shard(1, 1)) // an old one that does not know it
	if len(o.split) != 0 || len(o.elections) != 1 || o.elections[0].Node != 3 {
		t.Errorf("split %q, elections %+v, want none and one of node 3", o.split, o.elections)
	}
	o.take(1, shard(2, 1))
	if len(o.split) != 1 {
		t.Errorf("two leaders of term 2 are not noticed: %q", o.split)
	}
}

func TestExcused(t *testing.T) {
	disk := &injection{fault: fault{Kind: syncError, Nodes: []int{2}}, Began: 10 * time.Second, Ended: 12 * time.Second, Whole: 15 * time.Second}
	cut := &injection{fault: fault{Kind: partition, Nodes: []int{3}}, Began: 10 * time.Second, Ended: 12 * time.Second, Whole: 15 * time.Second}
	for _, c := range []struct {
		node string
		at   time.Duration
		want bool
	}{
		{"node 2", 9 * time.Second, false}, {"node 2", 11 * time.Second, true}, {"node 2", 14 * time.Second, true}, {"node 2", 20 * time.Second, false},
		{"node 3", 11 * time.Second, false}, {"provider", 11 * time.Second, false},
	} {
		if got := excused([]*injection{disk, cut}, c.node, c.at); got != c.want {
			t.Errorf("%s at %v: excused %v, want %v", c.node, c.at, got, c.want)
		}
	}
}

func TestMeasure(t *testing.T) {
	const s = time.Second
	a := measure([]sample{
		{Begin: 1 * s, Took: s / 10, Answered: true},
		{Begin: 2 * s, Took: s / 10, Answered: true},
		{Begin: 9 * s, Took: 3 * s, Answered: true}, // late, and a fault comes while it waits
		{Begin: 11 * s, Took: 10 * s},               // never
		{Begin: 14 * s, Took: s, Answered: true},
		{Begin: 30 * s, Took: 3 * s, Answered: true}, // late with no fault near
	}, []window{{10 * s, 15 * s}}, 40*s)
	if a.Sent != 6 || a.InTime != 3 || a.Answered != 5 || a.CalmSent != 3 || a.Calm != 2.0/3 || a.Overall != 0.5 {
		t.Errorf("%+v", a)
	}
	if a.LongestMS != 18_000 || a.Max != 3000 { // from 15 s to 33 s
		t.Errorf("longest gap %v ms, longest answer %v ms, want 18000 and 3000", a.LongestMS, a.Max)
	}
	if none := measure(nil, nil, s); none.Overall != 1 || none.LongestMS != 1000 {
		t.Errorf("without orders: %+v", none)
	}
}
