package payment

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"hanse/api/paymentpb"
	"hanse/internal/golden"
)

// way is one way through the table, with the answer.
type way struct {
	move
	code string
}

// Every way out of every payment that can be reached is in table P, and nothing is in table P that cannot happen. On each way:
// what is refused changes nothing, a call is under way exactly while an operation is, and its key is the operation's.
func TestEveryPairDoesWhatTheTableSays(t *testing.T) {
	listed := map[way]bool{} // false until it was seen
	for _, row := range Transitions() {
		for _, from := range row.From {
			for _, to := range row.leadsTo(from) {
				listed[way{move{from, row.On, to}, row.Code}] = false
			}
		}
	}
	for _, from := range Statuses() {
		for _, on := range Inputs() {
			_, isAnswer := listed[way{move{from, on, from}, ""}]
			for _, to := range Statuses() {
				_, ok := listed[way{move{from, on, to}, ""}]
				isAnswer = isAnswer || ok
			}
			if isBusy := underWayIn(from); on >= OnSucceeded && isAnswer != isBusy {
				t.Errorf("%s × %s: the table has rows: %v; a call can be answered: %v", from, on, isAnswer, isBusy)
			}
		}
	}
	failed := 0
	complain := func(format string, args ...any) {
		if failed++; failed <= 10 {
			t.Errorf(format, args...)
		}
	}
	shops := explore(func(before, after shop, in input, step Step) {
		w := way{move: move{Status(before.p), in.on, Status(after.p)}}
		if r := step.Rejection; r != nil {
			w.code = r.Code
			if !before.p.EqualVT(after.p) || step.Changed || step.Call != nil || len(step.Settled) > 0 {
				complain("%s, %s: refused with %s, and yet something happened", w.from, in.name, r.Code)
			}
		}
		if _, ok := listed[w]; !ok {
			complain("%s, %s: became %s with code %q, which table P does not list", w.from, in.name, w.to, w.code)
		}
		listed[w] = true
		if !step.Changed && !before.p.EqualVT(after.p) {
			complain("%s, %s: changed, and does not say so", w.from, in.name)
		}
		if after.p == nil {
			return
		}
		if err := Check(after.p); err != nil {
			complain("%s, %s: %v", w.from, in.name, err)
		}
		op := underWay(after.p)
		switch c := after.call; {
		case (op == nil) != (c == nil):
			complain("%s, %s: operation under way is %v, call is %v", w.from, in.name, op, c)
		case c != nil && (c.Op != op.Id || c.Key != Key(after.p.Id, op.Id) || c.Amount != op.Amount || c.Kind != op.Kind):
			complain("%s, %s: operation under way is %v, call is %v", w.from, in.name, op, c)
		case c != nil && c.Query != (op.State == paymentpb.OpState_OP_UNKNOWN):
			complain("%s, %s: operation is %s, call is %v", w.from, in.name, op.State, c)
		}
		for _, op := range after.p.Ops {
			old := find(before.p, op.Id)
			ended := isFinished(op) && (old == nil || !isFinished(old))
			if ended != slices.Contains(step.Settled, Key("pay_1", op.Id)) {
				complain("%s, %s: operation %s has ended: %v, settled %v", w.from, in.name, op.Id, ended, step.Settled)
			}
		}
	})
	for w, seen := range listed {
		if !seen && w != (way{move{None, OnAuthorize, None}, "message_expired"}) { // nothing is late in an exploration
			complain("nothing shows %s × %s → %s %q", w.from, w.on, w.to, w.code)
		}
	}
	if failed > 10 {
		t.Errorf("and %d more", failed-10)
	}
	if shops < 10_000 {
		t.Errorf("%d payments were reached: the exploration has become narrow", shops)
	}
}

func underWayIn(status string) bool { return slices.Contains(busy, status) }

func TestTableForTheDocumentation(t *testing.T) { golden.Compare(t, "testdata/table.golden", Table()) }

// Payments of 3 that are in each state, in the variants that matter, by inputs of the exploration.
var variants = []struct{ state, path string }{
	{None, ""},
	{Authorizing, "authorize 3"},
	{Authorizing, "authorize 3; void"},
	{Authorizing, "authorize 3; undelivered"},
	{Unknown, "authorize 3; unknown"},
	{Unknown, "authorize 3; unknown; void"},
	{Unknown, "authorize 3, unknown"},
	{Unknown, "void authorize 3"},
	{Authorizing, "void authorize 3; not found"},
	{Declined, "authorize 3; declined"},
	{Authorized, "authorize 3; succeeded"},
	{Authorized, "authorize 3; succeeded; void; declined"},
	{Voided, "void"},
	{Voided, "void; authorize 3"},
	{Voiding, "authorize 3; succeeded; void"},
	{Voided, "authorize 3; succeeded; void; succeeded"},
	{Capturing, "authorize 3; succeeded; capture c1 2"},
	{Capturing, "authorize 3; succeeded; capture c1 2; capture c2 1; refund r1 1"},
	{Unknown, "authorize 3; succeeded; capture c1 2; unknown"},
	{PartiallyCaptured, "authorize 3; succeeded; capture c1 2; succeeded"},
	{Captured, "authorize 3; succeeded; capture c1 2; succeeded; capture c2 1; succeeded"},
	{Captured, "authorize 3; succeeded; capture c1 2; succeeded; void; succeeded"},
	{Refunding, "authorize 3; succeeded; capture c1 2; succeeded; refund r1 1"},
	{PartiallyRefunded, "authorize 3; succeeded; capture c1 2; succeeded; refund r1 1; succeeded"},
	{Refunded, "authorize 3; succeeded; capture c1 2; succeeded; refund r2 2; succeeded"},
	{Refunded, "authorize 3; succeeded; capture c1 2; capture c2 1; succeeded; succeeded; refund r1 1; refund r2 2; succeeded; succeeded"},
	{Unknown, "authorize 3; succeeded; capture c1 2; succeeded; refund r2 2; unknown"},
}

func TestPairs(t *testing.T) {
	all := inputs()
	byName := func(name string) input {
		return all[slices.IndexFunc(all, func(in input) bool { return in.name == name })]
	}
	var out strings.Builder
	for _, v := range variants {
		var s shop
		for name := range strings.SplitSeq(v.path, "; ") {
			if name != "" {
				byName(name).do(&s)
			}
		}
		if Status(s.p) != v.state {
			t.Fatalf("%q is %s, want %s", v.path, Status(s.p), v.state)
		}
		fmt.Fprintf(&out, "%s: %s\n", v.state, v.path)
		for _, in := range all {
			if in.can != nil && !in.can(s) {
				continue
			}
			after := s.clone()
			step := in.do(&after)
			fmt.Fprintf(&out, "  %-24s %s\n", in.name, describe(after, step))
		}
	}
	golden.Compare(t, "testdata/pairs.golden", out.String())
}

// describe says in a line what came of an input.
func describe(s shop, step Step) string {
	if step.Rejection != nil {
		return step.Rejection.Code
	}
	text := Status(s.p)
	if p := s.p; p != nil {
		for _, a := range []struct {
			name   string
			amount int64
		}{{"authorized", p.Authorized}, {"captured", p.Captured}, {"voided", p.Voided}, {"refunded", p.Refunded}} {
			if a.amount != 0 {
				text += fmt.Sprintf(", %s %d", a.name, a.amount)
			}
		}
	}
	if step.Recall {
		text += ", recall"
	}
	if c := step.Call; c != nil {
		verb := "call"
		if c.Query {
			verb = "ask"
		}
		text += fmt.Sprintf(", %s %s %s %d", verb, c.Key, kindName(c.Kind), c.Amount)
		if step.NotBefore > noon {
			text += fmt.Sprintf(" after %d ms", step.NotBefore-noon)
		}
	}
	for _, key := range step.Settled {
		_, id, _ := SplitKey(key)
		op := find(s.p, id)
		text += fmt.Sprintf(", %s %s", id, strings.ToLower(strings.TrimPrefix(op.State.String(), "OP_")))
	}
	if IsStuck(s.p) {
		text += ", stuck"
	}
	return text
}
