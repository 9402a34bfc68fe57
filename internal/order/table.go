package order

import (
	"fmt"
	"strings"

	"hanse/internal/reject"
)

// Transition is a row of table O: in state From, On (a command, an answer or a deadline) may lead by Event to state To.
type Transition struct {
	From State
	// On is what brings the event about.
	On    string
	Event Kind
	To    State
	// Effect says what follows elsewhere; package saga sends it.
	Effect string
}

// Transitions returns table O.
func Transitions() []Transition { return transitions }

var transitions = func() []Transition {
	rows := []Transition{
		{None, "place", KindPlaced, Placing, "reserve the stock, in each inventory shard at once"},
		{None, "place", KindPlaced, AwaitingPayment, "no line is tracked: authorize the total"},
		{Placing, "stock held", KindStockReserved, Placing, "other shards have not answered, or the order is free"},
		{Placing, "stock held", KindStockReserved, AwaitingPayment, "all is held: authorize the total"},
		{Placing, "stock held", KindConfirmed, Confirmed, "the order is free, or authorized ahead: allocate the stock"},
		{Placing, "stock refused", KindStockRefused, Rejecting, "release what is or may be held elsewhere"},
		{Placing, "authorized", KindPaymentAuthorized, Placing, "ahead of an answer about the stock, which confirms"},
		{Placing, "declined", KindPaymentDeclined, Rejecting, "ahead of an answer about the stock: release it"},
		{AwaitingPayment, "authorized", KindPaymentAuthorized, AwaitingPayment, "on record; confirmed in the same entry"},
		{AwaitingPayment, "authorized", KindConfirmed, Confirmed, "the pivot: allocate the stock, forward only"},
		{AwaitingPayment, "declined", KindPaymentDeclined, Rejecting, "release the stock"},
		{Placing, "cancel", KindCancelRequested, Canceling, "void if it may be authorized, then release the stock"},
		{Placing, "key refused", KindKeyRefused, Rejecting, "the key is another request's: release what is or may be held"},
		{AwaitingPayment, "key refused", KindKeyRefused, Rejecting, "the key is another request's: release the stock"},
		{AwaitingPayment, "cancel", KindCancelRequested, Canceling, "void, then release the stock"},
		{Confirmed, "cancel", KindCancelRequested, Canceling, "void, then release the stock"},
		{Placing, "deadline", KindExpireRequested, Expiring, "void if it may be authorized, then release the stock"},
		{AwaitingPayment, "deadline", KindExpireRequested, Expiring, "void, then release the stock"},
		{Canceling, "stock released", KindEnded, Canceled, "every step is undone"},
		{Expiring, "stock released", KindEnded, Expired, "every step is undone"},
		{Rejecting, "stock released", KindEnded, Rejected, "every step is undone"},
		{PartiallyFulfilled, "cancel", KindRemainderCanceled, Fulfilled, "release the rest; void it when no capture is under way"},
		{Fulfilled, "voided", KindPaymentVoided, Fulfilled, "the rest of the authorization is given back"},
		{OnHold, "retry or resolve", KindStepResolved, PartiallyFulfilled, "the capture is sent again, or an operator has settled it"},
		{OnHold, "retry or resolve", KindStepResolved, Fulfilled, "the capture is sent again, or an operator has settled it"},
	}
	for _, s := range []State{Confirmed, PartiallyFulfilled} {
		for _, to := range []State{PartiallyFulfilled, Fulfilled} {
			rows = append(rows, Transition{s, "fulfill", KindFulfilled, to, "take the stock out, capture its price"})
		}
	}
	for _, s := range []State{Canceling, Expiring} {
		rows = append(rows,
			Transition{s, "authorized", KindPaymentAuthorized, s, "too late: it is being voided"},
			Transition{s, "voided", KindPaymentVoided, s, "release the stock"})
	}
	rows = append(rows, Transition{Rejecting, "voided", KindPaymentVoided, Rejecting, "it had been authorized ahead: release the stock"})
	for _, s := range []State{Canceling, Expiring, Rejecting} {
		rows = append(rows, Transition{s, "stock released", KindStockReleased, s, "ended when it was the last"})
	}
	for _, s := range []State{PartiallyFulfilled, Fulfilled, OnHold} {
		rows = append(rows,
			Transition{s, "captured", KindPaymentCaptured, s, "void the rest if the rest was canceled"},
			Transition{s, "capture failed", KindCaptureFailed, OnHold, "an operator retries or resolves"})
	}
	for _, s := range []State{PartiallyFulfilled, Fulfilled, Completed} {
		rows = append(rows,
			Transition{s, "return", KindReturned, s, "restock"},
			Transition{s, "return or refund", KindRefundRequested, s, "refund"})
	}
	for _, s := range []State{PartiallyFulfilled, Fulfilled, OnHold, Completed} {
		rows = append(rows,
			Transition{s, "refunded", KindPaymentRefunded, s, "–"},
			Transition{s, "refund failed", KindRefundFailed, s, "an operator retries or resolves"})
	}
	for _, s := range States() {
		rows = append(rows,
			Transition{s, "step stuck", KindStepStuck, s, "attention: it is tried again slowly"},
			Transition{s, "retry or resolve", KindStepResolved, s, "–"})
	}
	return rows
}()

// allowed has, for each state and kind of event, the set of states it may lead to.
var allowed = func() (set [16][kindCount]uint32) {
	for _, t := range transitions {
		set[t.From][t.Event] |= 1 << t.To
	}
	return set
}()

func allows(from State, k Kind, to State) bool { return allowed[from][k]&(1<<to) != 0 }

// Command names a command that callers send.
type Command string

// The commands.
const (
	CommandCancel  Command = "cancel"
	CommandFulfill Command = "fulfill"
	CommandReturn  Command = "return"
	CommandRefund  Command = "refund"
)

// Commands lists the commands on an existing order.
func Commands() []Command {
	return []Command{CommandCancel, CommandFulfill, CommandReturn, CommandRefund}
}

// Admits returns the code with which a command is refused in a state whatever its content, empty when it is looked at.
func Admits(c Command, s State) string { return admission[c][s] }

// admission has a row for every command and state; the empty code lets the command through.
var admission = map[Command]map[State]string{
	CommandCancel: {
		Placing: "", AwaitingPayment: "", Confirmed: "", PartiallyFulfilled: "", Canceling: "", // canceling: the same answer again
		OnHold: reject.OrderState, Fulfilled: reject.UseReturn, Completed: reject.OrderTerminal,
		Expiring: reject.OrderState, Rejecting: reject.OrderState,
		Canceled: reject.OrderTerminal, Expired: reject.OrderTerminal, Rejected: reject.OrderTerminal,
	},
	CommandFulfill: {
		Confirmed: "", PartiallyFulfilled: "",
		Placing: reject.OrderState, AwaitingPayment: reject.OrderState, OnHold: reject.OrderState,
		Canceling: reject.OrderState, Expiring: reject.OrderState, Rejecting: reject.OrderState,
		Fulfilled: reject.FulfillExceedsOpen, Completed: reject.OrderTerminal,
		Canceled: reject.OrderTerminal, Expired: reject.OrderTerminal, Rejected: reject.OrderTerminal,
	},
	CommandReturn: {
		Confirmed: "", PartiallyFulfilled: "", Fulfilled: "", Completed: "", // confirmed: nothing is fulfilled, so any quantity is too much
		Placing: reject.OrderState, AwaitingPayment: reject.OrderState, OnHold: reject.OrderState,
		Canceling: reject.OrderState, Expiring: reject.OrderState, Rejecting: reject.OrderState,
		Canceled: reject.OrderTerminal, Expired: reject.OrderTerminal, Rejected: reject.OrderTerminal,
	},
	CommandRefund: {
		Confirmed: "", PartiallyFulfilled: "", Fulfilled: "", Completed: "",
		Placing: reject.OrderState, AwaitingPayment: reject.OrderState, OnHold: reject.OrderState,
		Canceling: reject.OrderState, Expiring: reject.OrderState, Rejecting: reject.OrderState,
		Canceled: reject.OrderTerminal, Expired: reject.OrderTerminal, Rejected: reject.OrderTerminal,
	},
}

// Table prints the transitions and the answers to every command in every state as Markdown.
func Table() string {
	var b strings.Builder
	b.WriteString("| From | On | Event | To | Effect |\n|---|---|---|---|---|\n")
	for _, t := range transitions {
		event := t.Event.String()
		if t.Event == KindEnded {
			event = "order." + StateName(t.To)
		}
		fmt.Fprintf(&b, "| %s | %s | `%s` | %s | %s |\n", StateName(t.From), t.On, event, StateName(t.To), t.Effect)
	}
	b.WriteString("\n| State |")
	for _, c := range Commands() {
		fmt.Fprintf(&b, " %s |", c)
	}
	b.WriteString("\n|---|---|---|---|---|\n")
	for _, s := range States() {
		fmt.Fprintf(&b, "| %s |", StateName(s))
		for _, c := range Commands() {
			if code := Admits(c, s); code == "" {
				b.WriteString(" yes |")
			} else {
				fmt.Fprintf(&b, " `%s` |", code)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}
