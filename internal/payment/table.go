package payment

import (
	"fmt"
	"slices"
	"strings"

	"hanse/internal/invariant"
	"hanse/internal/reject"
)

// Input is what can happen to a payment: a command, or the answer to its call.
type Input uint8

// The inputs. OnWord is one of the first four with an operator's word that it has been done outside of the system. Those from OnSucceeded on answer
// the call that is under way: that it succeeded, was declined, that the provider does not know its key, that it was not sent, that its outcome is
// unknown, that it could not be delivered for long.
const (
	OnAuthorize Input = iota
	OnCapture
	OnVoid
	OnRefund
	OnWake
	OnRetry
	OnResolve
	OnWord
	OnSucceeded
	OnDeclined
	OnNotFound
	OnNotSent
	OnUnknown
	OnUndelivered

	inputCount
)

var inputNames = [inputCount]string{
	"authorize", "capture", "void", "refund", "wake", "retry", "resolve", "done outside", "succeeded", "declined", "not found", "not sent", "unknown", "undelivered",
}

func (i Input) String() string { return inputNames[i] }

// Inputs lists the inputs.
func Inputs() []Input {
	list := make([]Input, inputCount)
	for i := range list {
		list[i] = Input(i)
	}
	return list
}

// Transition is one row of table P.
type Transition struct {
	// From lists the states that the row is about.
	From []string
	On   Input
	// When tells the rows of one pair apart; empty for the only one.
	When string
	// To lists the states that it may lead to; empty for the one it comes from.
	To []string
	// Code is the answer to a command; empty for success.
	Code string
	// Effect says what goes to the provider, and what happens to the amounts; empty for nothing.
	Effect string
}

// Transitions returns table P: for every state and input what may happen. No decision leads where the table does not.
func Transitions() []Transition { return transitions }

var (
	// at rest nothing is under way; sending, the provider has or gets the call of an operation.
	atRest  = []string{Authorized, Declined, PartiallyCaptured, Captured, Voided, PartiallyRefunded, Refunded}
	sending = []string{Authorizing, Capturing, Voiding, Refunding}
	busy    = append(slices.Clone(sending), Unknown)
	all     = append(slices.Clone(atRest), busy...)
)

const nextOp = "; what waits is sent"

var transitions = []Transition{
	{[]string{None}, OnAuthorize, "in time", []string{Authorizing}, "", "the authorization is sent"},
	{[]string{None}, OnAuthorize, "the provider was called first", []string{Authorized, Declined, Authorizing, Unknown}, "", "as it has answered"},
	{[]string{None}, OnAuthorize, "too late", nil, reject.MessageExpired, ""},
	{[]string{None}, OnVoid, "", []string{Voided}, "", "remembered: an authorization that comes later is canceled"},
	{[]string{None}, OnVoid, "of what the provider may have been called for first", []string{Unknown}, "", "it waits; the provider is asked by key"},
	{[]string{None}, OnCapture, "", nil, reject.PaymentNotFound, ""},
	{[]string{None}, OnRefund, "", nil, reject.PaymentNotFound, ""},
	{[]string{None}, OnWake, "", nil, reject.PaymentNotFound, ""},
	{[]string{None}, OnRetry, "", nil, reject.PaymentNotFound, ""},
	{[]string{None}, OnResolve, "", nil, reject.PaymentNotFound, ""},

	{all, OnAuthorize, "the same; or the first after an early void, which is canceled", nil, "", ""},
	{all, OnAuthorize, "another", nil, reject.PaymentMismatch, ""},

	{[]string{Authorized, PartiallyCaptured, PartiallyRefunded, Refunded}, OnCapture, "at most what is left", []string{Capturing}, "", "the capture is sent"},
	{[]string{Capturing, Refunding, Unknown}, OnCapture, "at most what is left", nil, "", "it waits"},
	{without(all, Authorizing, Declined), OnCapture, "the same again", nil, "", ""},
	{without(all, Authorizing, Declined), OnCapture, "another under its ID", nil, reject.PaymentMismatch, ""},
	{all, OnCapture, "more than is left, or a void was asked for", nil, reject.PaymentState, ""},

	{[]string{Authorized, PartiallyCaptured, PartiallyRefunded, Refunded}, OnVoid, "something is left", []string{Voiding}, "", "the void of the rest is sent"},
	{[]string{Declined, Captured, Voided, PartiallyRefunded, Refunded}, OnVoid, "nothing is left", nil, "", "done"},
	{busy, OnVoid, "a new one", nil, "", "it waits: what the provider has is not called off blindly"},
	{all, OnVoid, "the same again", nil, "", ""},

	{[]string{PartiallyCaptured, Captured, PartiallyRefunded}, OnRefund, "at most what is captured", []string{Refunding}, "", "the refund is sent"},
	{[]string{Capturing, Voiding, Refunding, Unknown}, OnRefund, "at most what is captured or about to be", nil, "", "it waits"},
	{without(all, Authorizing, Declined), OnRefund, "the same again", nil, "", ""},
	{without(all, Authorizing, Declined), OnRefund, "another under its ID", nil, reject.PaymentMismatch, ""},
	{all, OnRefund, "more than is captured", nil, reject.PaymentState, ""},

	{all, OnWake, "no call waits for its time", nil, "", ""},
	{busy, OnWake, "a call waits for its time", []string{Unknown}, "", "the question is asked at once, instead of the call"},

	{all, OnRetry, "of an operation that waits for others or has ended", nil, "", ""},
	{busy, OnRetry, "of the one under way", []string{Unknown}, "", "the question is asked at once, instead of the call"},
	{all, OnRetry, "of one that is not there", nil, reject.PaymentState, ""},

	{all, OnRetry, "of an operation that has ended, by one who wants to know", nil, reject.PaymentState, ""},

	{without(all, Authorizing), OnResolve, "of an operation that has ended", nil, "", ""},
	{without(all, Authorizing), OnResolve, "the same, by one who wants to know", nil, reject.PaymentState, ""},
	{all, OnResolve, "of one that is neither unknown nor stuck, or not there", nil, reject.PaymentState, ""},
	{[]string{Authorizing}, OnResolve, "stuck", []string{Authorized, Voiding, Declined}, "", "as the operator says" + nextOp},
	{[]string{Capturing}, OnResolve, "stuck", []string{
		Authorized, PartiallyCaptured, Captured, PartiallyRefunded, Refunded, Capturing, Voiding, Refunding,
	}, "", "as the operator says" + nextOp},
	{[]string{Voiding}, OnResolve, "stuck", []string{
		Authorized, PartiallyCaptured, Captured, Voided, PartiallyRefunded, Refunded, Voiding, Refunding,
	}, "", "as the operator says" + nextOp},
	{[]string{Refunding}, OnResolve, "stuck", []string{
		PartiallyCaptured, Captured, PartiallyRefunded, Refunded, Capturing, Voiding, Refunding,
	}, "", "as the operator says" + nextOp},
	{[]string{Unknown}, OnResolve, "of the one under way", []string{
		Authorized, Declined, PartiallyCaptured, Captured, Voided, PartiallyRefunded, Refunded, Capturing, Voiding, Refunding,
	}, "", "as the operator says" + nextOp},

	// The word is about an operation, which has not begun, waits for others, or is under way.
	{[]string{None}, OnWord, "authorize, void", []string{Authorized, Voided}, "", "recorded"},
	{[]string{None}, OnWord, "capture, refund", nil, reject.PaymentNotFound, ""},
	{without(all, Authorizing), OnWord, "an operation that has ended, or waits for others", nil, "", "recorded, unless it has ended"},
	{all, OnWord, "another under its ID", nil, reject.PaymentMismatch, ""},
	{all, OnWord, "more than there is; void during a capture or a refund", nil, reject.PaymentState, ""},
	{[]string{Authorized}, OnWord, "capture, void", []string{PartiallyCaptured, Captured, Voided}, "", "recorded"},
	{[]string{PartiallyCaptured}, OnWord, "capture, void, refund", []string{PartiallyCaptured, Captured, PartiallyRefunded, Refunded}, "", "recorded"},
	{[]string{Captured, PartiallyRefunded}, OnWord, "refund", []string{PartiallyRefunded, Refunded}, "", "recorded"},
	{[]string{Refunded}, OnWord, "capture", []string{PartiallyRefunded}, "", "recorded"},
	{[]string{Authorizing}, OnWord, "authorize; void, so the authorization was given back", []string{Authorized, Voiding, Voided}, "", "recorded" + nextOp},
	{[]string{Capturing}, OnWord, "the one under way", []string{
		PartiallyCaptured, Captured, PartiallyRefunded, Capturing, Voiding, Refunding,
	}, "", "recorded" + nextOp},
	{[]string{Voiding}, OnWord, "the one under way", []string{Captured, Voided, PartiallyRefunded, Refunded, Refunding}, "", "recorded" + nextOp},
	{[]string{Refunding}, OnWord, "the one under way", []string{PartiallyRefunded, Refunded, Capturing, Voiding, Refunding}, "", "recorded" + nextOp},
	{[]string{Unknown}, OnWord, "the one under way", []string{
		Authorized, PartiallyCaptured, Captured, Voided, PartiallyRefunded, Refunded, Capturing, Voiding, Refunding,
	}, "", "recorded" + nextOp},

	{[]string{Authorizing}, OnSucceeded, "", []string{Authorized, Voiding}, "", "authorized += a" + nextOp},
	{[]string{Capturing}, OnSucceeded, "", []string{
		PartiallyCaptured, Captured, PartiallyRefunded, Capturing, Voiding, Refunding,
	}, "", "captured += a" + nextOp},
	{[]string{Voiding}, OnSucceeded, "", []string{Captured, Voided, PartiallyRefunded, Refunded, Refunding}, "", "voided += a" + nextOp},
	{[]string{Refunding}, OnSucceeded, "", []string{PartiallyRefunded, Refunded, Capturing, Voiding, Refunding}, "", "refunded += a" + nextOp},
	{[]string{Unknown}, OnSucceeded, "", []string{
		Authorized, PartiallyCaptured, Captured, Voided, PartiallyRefunded, Refunded, Capturing, Voiding, Refunding,
	}, "", "the operation's amount is added" + nextOp},

	{[]string{Authorizing}, OnDeclined, "", []string{Declined}, "", "a void that waits has nothing to do"},
	{[]string{Capturing}, OnDeclined, "", []string{
		Authorized, PartiallyCaptured, PartiallyRefunded, Refunded, Capturing, Voiding, Refunding,
	}, "", "refunds that counted on it are canceled" + nextOp},
	{[]string{Voiding}, OnDeclined, "", []string{Authorized, PartiallyCaptured, PartiallyRefunded, Refunded, Voiding, Refunding}, "", nextOp[2:]},
	{[]string{Refunding}, OnDeclined, "", []string{PartiallyCaptured, Captured, PartiallyRefunded, Capturing, Voiding, Refunding}, "", nextOp[2:]},
	{[]string{Unknown}, OnDeclined, "", []string{
		Authorized, Declined, PartiallyCaptured, Captured, PartiallyRefunded, Refunded, Capturing, Voiding, Refunding,
	}, "", nextOp[2:]},

	{sending, OnNotFound, "of a call, which is no answer", []string{Unknown}, "", "after a pause the provider is asked by key"},
	{[]string{Unknown}, OnNotFound, "", sending, "", "it is sent again at once, under the same key"},
	{sending, OnNotSent, "", nil, "", "after a pause it is sent again, under the same key"},
	{[]string{Unknown}, OnNotSent, "", nil, "", "after a pause the provider is asked again"},
	{busy, OnUnknown, "or another amount than asked for", []string{Unknown}, "", "after a pause the provider is asked by key"},
	{busy, OnUndelivered, "", nil, "", "stuck: a person is told, and delivery goes on"},
}

func without(states []string, others ...string) []string {
	return slices.DeleteFunc(slices.Clone(states), func(s string) bool { return slices.Contains(others, s) })
}

// move is one way through the table.
type move struct {
	from string
	on   Input
	to   string
}

var allowed = func() map[move]bool {
	set := make(map[move]bool)
	for _, t := range transitions {
		for _, from := range t.From {
			for _, to := range t.leadsTo(from) {
				set[move{from, t.On, to}] = true
			}
		}
	}
	return set
}()

// leadsTo lists where the row leads from one of its states.
func (t Transition) leadsTo(from string) []string {
	if len(t.To) == 0 {
		return []string{from}
	}
	return t.To
}

// moved checks that a payment went where the table says.
func moved(id, from string, on Input, to string) {
	if !allowed[move{from, on, to}] {
		invariant.Check(false, "payment %s: %s by %s became %s", id, from, on, to)
	}
}

// Table prints table P as Markdown, for the documentation.
func Table() string {
	var b strings.Builder
	b.WriteString("| From | On | When | To | Answer | Effect |\n|---|---|---|---|---|---|\n")
	for _, t := range transitions {
		answer := ""
		switch {
		case t.Code != "":
			answer = "`" + t.Code + "`"
		case t.On < OnSucceeded:
			answer = "done, or later"
		}
		to := strings.Join(t.To, ", ")
		if to == "" {
			to = "the same"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", states(t.From), t.On, t.When, to, answer, t.Effect)
	}
	return b.String()
}

func states(list []string) string {
	switch missing := without(all, list...); {
	case len(missing) == 0:
		return "any but none"
	case len(missing) < 3:
		return "any but none, " + strings.Join(missing, ", ")
	}
	return strings.Join(list, ", ")
}
