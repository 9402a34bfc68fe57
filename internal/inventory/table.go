package inventory

import (
	"fmt"
	"strings"

	"hanse/api/inventorypb"
	"hanse/internal/invariant"
	"hanse/internal/reject"
)

// The states of a hold, under short names. None is a hold that nobody has heard of.
const (
	None      = inventorypb.HoldState_HOLD_UNSPECIFIED
	Held      = inventorypb.HoldState_HELD
	Allocated = inventorypb.HoldState_ALLOCATED
	Refused   = inventorypb.HoldState_REFUSED
	Void      = inventorypb.HoldState_VOID
	Released  = inventorypb.HoldState_RELEASED
	Expired   = inventorypb.HoldState_EXPIRED
	Consumed  = inventorypb.HoldState_CONSUMED
	Tentative = inventorypb.HoldState_TENTATIVE

	stateCount = int(Tentative) + 1
)

// States lists the states in the order of their numbers.
func States() []State {
	return []State{None, Held, Allocated, Refused, Void, Released, Expired, Consumed, Tentative}
}

// Op is what can happen to a hold.
type Op uint8

// The operations. OnReleasePart releases listed demands, OnRelease all that is left. OnDue is the coming of the
// hold's time, OnUnwanted the order's answer that it does not want the hold any more, OnWanted that it does.
const (
	OnReserve Op = iota
	OnAllocate
	OnRelease
	OnReleasePart
	OnFulfill
	OnRestock
	OnDue
	OnUnwanted
	OnWanted

	opCount
)

var opNames = [opCount]string{"reserve", "allocate", "release", "release part", "fulfill", "restock", "due", "unwanted", "wanted"}

func (o Op) String() string { return opNames[o] }

// Ops lists the operations.
func Ops() []Op {
	return []Op{OnReserve, OnAllocate, OnRelease, OnReleasePart, OnFulfill, OnRestock, OnDue, OnUnwanted, OnWanted}
}

// Transition is one row of table R.
type Transition struct {
	From State
	On   Op
	// When tells rows of one pair apart; empty for the only row of its pair.
	When string
	To   State
	// Code is the answer; empty for success.
	Code string
	// Effect says what happens, mostly to the counters; empty for nothing.
	Effect string
}

// Transitions returns table R: for every state and operation what may happen. Pairs with a single
// row are answered from the table, the others by the function of the operation, whose result is checked against it.
func Transitions() []Transition { return transitions }

var transitions = []Transition{
	{None, OnReserve, "all of it is available", Held, "", "reserved += q"},
	{None, OnReserve, "too little is available", Refused, reject.OutOfStock, ""},
	{None, OnReserve, "a SKU is unknown", Refused, reject.UnknownSKU, ""},
	{None, OnReserve, "the message has expired", None, reject.MessageExpired, ""},
	{None, OnReserve, "too little is available, but for what is tentative, and it awaits that", None, "", "none yet: it is asked again; contested = t + 1 s"},
	{None, OnReserve, "tentatively, all of it is available", Tentative, "", "reserved += q, tentative += q"},
	{None, OnReserve, "tentatively, too little is available, or it is contested", None, reject.OutOfStock, ""},
	{None, OnReserve, "tentatively, a SKU is unknown", None, reject.UnknownSKU, ""},
	{None, OnAllocate, "", None, reject.HoldNotFound, ""},
	{None, OnRelease, "an order's", Void, "", ""},
	{None, OnRelease, "a free-standing one", None, reject.HoldNotFound, ""},
	{None, OnReleasePart, "", None, reject.HoldNotFound, ""},
	{None, OnFulfill, "", None, reject.HoldNotFound, ""},
	{None, OnRestock, "", None, reject.HoldNotFound, ""},
	{None, OnDue, "", None, "", ""},
	{None, OnUnwanted, "", None, "", ""},
	{None, OnWanted, "", None, "", ""},

	{Held, OnReserve, "the same", Held, "", ""},
	{Held, OnReserve, "other contents", Held, reject.HoldMismatch, ""},
	{Held, OnAllocate, "", Allocated, "", "reserved −= rest, allocated += rest"},
	{Held, OnRelease, "", Released, "", "reserved −= rest"},
	{Held, OnReleasePart, "some is left", Held, "", "reserved −= n"},
	{Held, OnReleasePart, "nothing is left, no line is untracked", Released, "", "reserved −= n"},
	{Held, OnReleasePart, "more than is left", Held, reject.HoldMismatch, ""},
	{Held, OnFulfill, "some is left", Allocated, "", "reserved −= rest, allocated += rest − n, on_hand −= n"},
	{Held, OnFulfill, "nothing is left", Consumed, "", "reserved −= rest, on_hand −= n"},
	{Held, OnFulfill, "more than is left", Held, reject.HoldMismatch, ""},
	{Held, OnRestock, "", Held, reject.HoldMismatch, ""},
	{Held, OnDue, "an order's", Held, "", "the order is asked"},
	{Held, OnDue, "a free-standing one", Expired, "", "reserved −= rest"},
	{Held, OnUnwanted, "", Released, "", "reserved −= rest"},
	{Held, OnWanted, "", Held, "", "it is asked again later"},

	{Tentative, OnReserve, "the same, tentatively", Tentative, "", ""},
	{Tentative, OnReserve, "the same, the order is on record", Held, "", "tentative −= rest"},
	{Tentative, OnReserve, "other contents", Tentative, reject.HoldMismatch, ""},
	{Tentative, OnAllocate, "", Allocated, "", "reserved −= rest, tentative −= rest, allocated += rest"},
	{Tentative, OnRelease, "", Released, "", "reserved −= rest, tentative −= rest"},
	{Tentative, OnReleasePart, "some is left", Tentative, "", "reserved −= n, tentative −= n"},
	{Tentative, OnReleasePart, "nothing is left, no line is untracked", Released, "", "reserved −= n, tentative −= n"},
	{Tentative, OnReleasePart, "more than is left", Tentative, reject.HoldMismatch, ""},
	{Tentative, OnFulfill, "some is left", Allocated, "", "reserved −= rest, tentative −= rest, allocated += rest − n, on_hand −= n"},
	{Tentative, OnFulfill, "nothing is left", Consumed, "", "reserved −= rest, tentative −= rest, on_hand −= n"},
	{Tentative, OnFulfill, "more than is left", Tentative, reject.HoldMismatch, ""},
	{Tentative, OnRestock, "", Tentative, reject.HoldMismatch, ""},
	{Tentative, OnDue, "", Tentative, "", ""},
	{Tentative, OnUnwanted, "", Expired, "", "reserved −= rest, tentative −= rest"},
	{Tentative, OnWanted, "", Held, "", "tentative −= rest"},

	{Allocated, OnReserve, "the same", Allocated, "", ""},
	{Allocated, OnReserve, "other contents", Allocated, reject.HoldMismatch, ""},
	{Allocated, OnAllocate, "", Allocated, "", ""},
	{Allocated, OnRelease, "nothing was fulfilled", Released, "", "allocated −= rest"},
	{Allocated, OnRelease, "some was fulfilled", Consumed, "", "allocated −= rest"},
	{Allocated, OnReleasePart, "some is left", Allocated, "", "allocated −= n"},
	{Allocated, OnReleasePart, "nothing is left or was fulfilled", Released, "", "allocated −= n"},
	{Allocated, OnReleasePart, "nothing is left, some was fulfilled", Consumed, "", "allocated −= n"},
	{Allocated, OnReleasePart, "more than is left", Allocated, reject.HoldMismatch, ""},
	{Allocated, OnFulfill, "some is left", Allocated, "", "allocated −= n, on_hand −= n"},
	{Allocated, OnFulfill, "nothing is left", Consumed, "", "allocated −= n, on_hand −= n"},
	{Allocated, OnFulfill, "more than is left", Allocated, reject.HoldMismatch, ""},
	{Allocated, OnRestock, "at most what was fulfilled", Allocated, "", "on_hand += n (damaged: unavailable += n too)"},
	{Allocated, OnRestock, "more than was fulfilled", Allocated, reject.HoldMismatch, ""},
	{Allocated, OnDue, "", Allocated, "", ""},
	{Allocated, OnUnwanted, "", Allocated, "", ""},
	{Allocated, OnWanted, "", Allocated, "", ""},

	{Refused, OnReserve, "the same: the same answer", Refused, reject.OutOfStock, ""},
	{Refused, OnReserve, "the same: the same answer", Refused, reject.UnknownSKU, ""},
	{Refused, OnReserve, "other contents", Refused, reject.HoldMismatch, ""},
	{Refused, OnAllocate, "", Refused, reject.HoldCanceled, ""},
	{Refused, OnRelease, "", Refused, "", ""},
	{Refused, OnReleasePart, "", Refused, "", ""},
	{Refused, OnFulfill, "", Refused, reject.HoldCanceled, ""},
	{Refused, OnRestock, "", Refused, reject.HoldMismatch, ""},
	{Refused, OnDue, "", Refused, "", ""},
	{Refused, OnUnwanted, "", Refused, "", ""},
	{Refused, OnWanted, "", Refused, "", ""},

	{Void, OnReserve, "", Void, reject.HoldCanceled, ""},
	{Void, OnAllocate, "", Void, reject.HoldCanceled, ""},
	{Void, OnRelease, "", Void, "", ""},
	{Void, OnReleasePart, "", Void, "", ""},
	{Void, OnFulfill, "", Void, reject.HoldCanceled, ""},
	{Void, OnRestock, "", Void, reject.HoldMismatch, ""},
	{Void, OnDue, "", Void, "", ""},
	{Void, OnUnwanted, "", Void, "", ""},
	{Void, OnWanted, "", Void, "", ""},

	{Released, OnReserve, "", Released, reject.HoldCanceled, ""},
	{Released, OnAllocate, "", Released, reject.HoldCanceled, ""},
	{Released, OnRelease, "", Released, "", ""},
	{Released, OnReleasePart, "", Released, "", ""},
	{Released, OnFulfill, "", Released, reject.HoldCanceled, ""},
	{Released, OnRestock, "", Released, reject.HoldMismatch, ""},
	{Released, OnDue, "", Released, "", ""},
	{Released, OnUnwanted, "", Released, "", ""},
	{Released, OnWanted, "", Released, "", ""},

	{Expired, OnReserve, "", Expired, reject.HoldExpired, ""},
	{Expired, OnAllocate, "", Expired, reject.HoldExpired, ""},
	{Expired, OnRelease, "", Expired, "", ""},
	{Expired, OnReleasePart, "", Expired, "", ""},
	{Expired, OnFulfill, "", Expired, reject.HoldExpired, ""},
	{Expired, OnRestock, "", Expired, reject.HoldMismatch, ""},
	{Expired, OnDue, "", Expired, "", ""},
	{Expired, OnUnwanted, "", Expired, "", ""},
	{Expired, OnWanted, "", Expired, "", ""},

	{Consumed, OnReserve, "the same", Consumed, "", ""},
	{Consumed, OnReserve, "other contents", Consumed, reject.HoldMismatch, ""},
	{Consumed, OnAllocate, "", Consumed, "", ""},
	{Consumed, OnRelease, "", Consumed, "", ""},
	{Consumed, OnReleasePart, "a new operation", Consumed, reject.HoldMismatch, ""},
	{Consumed, OnReleasePart, "a repeated operation, or untracked lines", Consumed, "", ""},
	{Consumed, OnFulfill, "a new operation", Consumed, reject.HoldMismatch, ""},
	{Consumed, OnFulfill, "a repeated operation, or untracked lines", Consumed, "", ""},
	{Consumed, OnRestock, "at most what was fulfilled", Consumed, "", "on_hand += n (damaged: unavailable += n too)"},
	{Consumed, OnRestock, "more than was fulfilled", Consumed, reject.HoldMismatch, ""},
	{Consumed, OnDue, "", Consumed, "", ""},
	{Consumed, OnUnwanted, "", Consumed, "", ""},
	{Consumed, OnWanted, "", Consumed, "", ""},
}

// rule is what the table says about one pair.
type rule struct {
	rows []Transition
	// fixed says that the answer does not depend on anything else: code, and no effect.
	fixed bool
	code  string
	// to has a bit for each state that the pair may lead to.
	to uint16
}

var rules = func() (table [stateCount][opCount]rule) {
	for _, t := range transitions {
		r := &table[t.From][t.On]
		r.rows = append(r.rows, t)
		r.to |= 1 << t.To
		r.fixed = len(r.rows) == 1 && t.To == t.From && t.Effect == ""
		r.code = t.Code
	}
	return table
}()

// moved checks that a hold that was changed by op went where the table says.
func moved(h *Hold, from State, op Op) {
	if rules[from][op].to&(1<<h.State) == 0 {
		invariant.Check(false, "hold %s: %s by %s became %s", h.Id, from, op, h.State)
	}
}

// StateName returns a state's lower-case name; "none" for a hold that does not exist.
func StateName(s State) string {
	if s == None {
		return "none"
	}
	return strings.ToLower(s.String())
}

// Table prints table R as Markdown, for the documentation.
func Table() string {
	var b strings.Builder
	b.WriteString("| From | Operation | When | To | Answer | Counters |\n|---|---|---|---|---|---|\n")
	for _, t := range transitions {
		answer := "done"
		if t.Code != "" {
			answer = "`" + t.Code + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", StateName(t.From), t.On, t.When, StateName(t.To), answer, t.Effect)
	}
	return b.String()
}
