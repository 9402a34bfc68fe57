package payment

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"hanse/api/paymentpb"
	"hanse/internal/proptest"
)

// till is a provider: it carries a call out once for each key, and would charge again under another.
type till struct {
	done                                   map[string]*paymentpb.ProviderAnswer
	asked                                  map[string]*paymentpb.ProviderCall
	authorized, captured, voided, refunded int64
	charges                                int
}

func (b *till) sums() [4]int64 { return [4]int64{b.authorized, b.captured, b.voided, b.refunded} }

// execute does what c asks for, and says how it went. Refuse declines what it would otherwise do.
func (b *till) execute(t *rapid.T, c *paymentpb.ProviderCall, refuse bool) *paymentpb.ProviderAnswer {
	if a := b.done[c.Key]; a != nil {
		if first := b.asked[c.Key]; !c.Query && (first.Amount != c.Amount || first.Kind != c.Kind) {
			t.Fatalf("key %s was used for %v and then for %v", c.Key, first, c)
		}
		return a.CloneVT()
	}
	if c.Query {
		return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_FOUND}
	}
	a := &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "ref " + c.Op, Amount: c.Amount}
	switch {
	case refuse,
		c.Kind == paymentpb.OpKind_CAPTURE && c.Amount > b.authorized-b.captured-b.voided,
		c.Kind == paymentpb.OpKind_VOID && c.Amount > b.authorized-b.captured-b.voided,
		c.Kind == paymentpb.OpKind_REFUND && c.Amount > b.captured-b.refunded:
		a = &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED, Code: "no"}
	case c.Kind == paymentpb.OpKind_AUTHORIZE:
		b.authorized += c.Amount
		b.charges++
	case c.Kind == paymentpb.OpKind_CAPTURE:
		b.captured += c.Amount
	case c.Kind == paymentpb.OpKind_VOID:
		b.voided += c.Amount
	case c.Kind == paymentpb.OpKind_REFUND:
		b.refunded += c.Amount
	}
	b.done[c.Key], b.asked[c.Key] = a, c
	return a.CloneVT()
}

func encode(tb rapid.TB, c *paymentpb.Command) []byte {
	data, err := c.MarshalVT()
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// Commands come in any order, some twice. Calls are delivered once or more often, late or never; their answers are lost, or come
// after the call was given up. Whatever happens: the provider charges an order once, knows each key for one thing, and in the end
// agrees with the payment about every amount.
func TestAProviderNeverChargesTwice(t *testing.T) {
	probes := map[string]int{}
	missing := func() []string {
		return proptest.Unseen(probes, "late", "answer lost", "delivered twice", "success after void", "died with the answer", "called again", "void before the log")
	}
	proptest.Reach(t, missing, func(t *rapid.T) {
		bank := &till{done: map[string]*paymentpb.ProviderAnswer{}, asked: map[string]*paymentpb.ProviderCall{}}
		var s shop
		var wire []*paymentpb.ProviderCall // requests that may still arrive, each any number of times
		now := int64(noon)
		declines := rapid.IntRange(0, 9).Draw(t, "declines of 10") / 3
		refuse := func() bool { return rapid.IntRange(0, 9).Draw(t, "luck") < declines }
		decide := func(c *paymentpb.Command) {
			var step Step
			s.p, step = Decide(s.p, c, now)
			s.take(step)
		}
		answer := func(a *paymentpb.ProviderAnswer) {
			call := s.call
			s.call = nil
			s.take(Answer(s.p, call, a, now))
		}
		// Some orders have the provider called first: by a leader that may die before it can log the answer. The order sends its authorization until
		// there is an answer or a void, and its voids carry the authorization.
		first, asked := rapid.Bool().Draw(t, "call first"), false
		voids := []*paymentpb.Command{voiding(""), voiding(""), voiding("v2")}
		if first {
			for _, c := range voids {
				c.GetVoid().Authorize = calledFirst(6, nil).GetAuthorize()
			}
		}
		callFirst := func(luck int) {
			call, c := First(encode(t, calledFirst(6, nil)), now)
			c.GetAuthorize().Answer = &paymentpb.ProviderAnswer{}
			asked = true
			if luck < 4 {
				c.GetAuthorize().Answer = bank.execute(t, call, refuse())
			}
			wire = append(wire, call)
			switch luck {
			case 3:
				probes["died with the answer"]++
				return
			case 4: // or before it asked
				return
			case 5:
				c.GetAuthorize().Answer.Status, wire = paymentpb.ProviderStatus_PROVIDER_NOT_SENT, wire[:len(wire)-1]
			}
			decide(c)
		}
		// total is what is asked for: 6, in one authorization.
		commands := []*paymentpb.Command{
			authorizing(6), authorizing(6), capturing("c1", 2), capturing("c2", 3), capturing("c3", 1), capturing("c4", 6),
			voids[0], voids[1], voids[2], refunding("r1", 2), refunding("r2", 3), refunding("r3", 1), waking(),
			retrying(AuthorizeOp), retrying("c1"), retrying(VoidOp), retrying("r1"),
		}
		if first {
			commands = commands[2:]
		}
		if luck := rapid.IntRange(0, 6).Draw(t, "begin"); luck > 0 && first { // mostly: else a void may come first
			callFirst(luck)
		} else if luck > 0 {
			decide(authorizing(6))
		}
		for range rapid.IntRange(5, 60).Draw(t, "steps") {
			now += rapid.SampledFrom([]int64{0, 1, 100, 10_000, 1_000_000}).Draw(t, "time")
			voidPending := s.p.GetVoidRequested()
			switch what := rapid.IntRange(0, 10).Draw(t, "what"); {
			case what == 0 && first:
				if s.p == nil && len(bank.done) > 0 {
					probes["called again"]++
				}
				callFirst(rapid.IntRange(0, 6).Draw(t, "call"))
			case what <= 3:
				if s.p == nil && len(bank.done) > 0 {
					probes["void before the log"]++
				}
				decide(rapid.SampledFrom(commands).Draw(t, "command"))
			case what == 4 && len(wire) > 0:
				bank.execute(t, rapid.SampledFrom(wire).Draw(t, "request"), refuse())
				probes["late"]++
			case s.call == nil:
			case what <= 7: // arrives, and is answered
				wire = append(wire, s.call)
				a := bank.execute(t, s.call, refuse())
				if voidPending && s.call.Kind == paymentpb.OpKind_AUTHORIZE && a.Status == paymentpb.ProviderStatus_PROVIDER_SUCCEEDED {
					probes["success after void"]++
				}
				answer(a)
			case what == 8: // no answer: it may arrive later, or have arrived
				wire = append(wire, s.call)
				if rapid.Bool().Draw(t, "arrives") {
					bank.execute(t, s.call, refuse())
					probes["answer lost"]++
				}
				answer(&paymentpb.ProviderAnswer{})
			case what == 9: // certainly not sent
				answer(&paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_NOT_SENT})
			default: // the leader that delivered it died before it could say so: the next one delivers it again
				wire = append(wire, s.call)
				bank.execute(t, s.call, refuse())
				probes["delivered twice"]++
			}
			if bank.charges > 1 || bank.authorized > 6 {
				t.Fatalf("charged %d times, %d in all", bank.charges, bank.authorized)
			}
		}
		// Everything heals: what is on the wire arrives, every call has its true answer.
		if first && asked && s.p == nil {
			callFirst(0)
		}
		for _, c := range wire {
			bank.execute(t, c, false)
		}
		for rounds := 0; s.call != nil; rounds++ {
			if rounds > 100 {
				t.Fatalf("after %d answers a call is still under way: %v", rounds, s.call)
			}
			now += 1_000_000
			answer(bank.execute(t, s.call, false))
		}
		if s.p == nil {
			if len(bank.done) > 0 {
				t.Fatalf("there is no payment, and the provider did %v", bank.done)
			}
			return
		}
		settled := bank.sums()
		if got := [4]int64{s.p.Authorized, s.p.Captured, s.p.Voided, s.p.Refunded}; got != settled {
			t.Fatalf("the payment has authorized, captured, voided, refunded %v and the provider %v", got, settled)
		}
		for _, op := range s.p.Ops {
			if !isFinished(op) || op.Stuck {
				t.Fatalf("in the end %v is open", op)
			}
		}
		for key := range bank.done {
			if _, id, _ := SplitKey(key); find(s.p, id) == nil {
				t.Fatalf("the provider did %s, of which the payment knows nothing", key)
			}
		}
		if op := find(s.p, VoidOp); op != nil && op.State == paymentpb.OpState_OP_SUCCEEDED && settled[0] != settled[1]+settled[2] {
			t.Fatalf("voided, and %d of %d are neither captured nor voided", settled[0]-settled[1]-settled[2], settled[0])
		}
		for _, c := range wire { // duplicates that arrive even later
			bank.execute(t, c, false)
		}
		if bank.sums() != settled {
			t.Fatalf("a request that came late changed %v to %v", settled, bank.sums())
		}
	})
}

// More operations, amounts and turns than an exploration can hold, and operators who decide against the provider: each change is one
// of table P, which the decisions check themselves.
func TestRandomLivesFollowTheTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s shop
		answers := []*paymentpb.ProviderAnswer{
			{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED}, {Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED}, {},
			{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED}, {Status: paymentpb.ProviderStatus_PROVIDER_NOT_FOUND},
			{Status: paymentpb.ProviderStatus_PROVIDER_NOT_SENT}, {Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Amount: 77},
		}
		for range rapid.IntRange(10, 80).Draw(t, "steps") {
			op := rapid.SampledFrom([]string{AuthorizeOp, VoidOp, "v2", "c1", "c2", "c3", "r1", "r2", "r3"}).Draw(t, "op")
			amount := rapid.Int64Range(1, 6).Draw(t, "amount")
			switch rapid.IntRange(0, 14).Draw(t, "what") {
			case 14: // an operator settles a step of the order
				c := rapid.SampledFrom([]*paymentpb.Command{
					authorizing(6), voidingDoubtful(6), voiding(op), capturing(op, amount), capturing(op, amount), refunding(op, amount), refunding(op, amount),
				}).Draw(t, "done outside")
				s.decide(spoken(c.CloneVT()))
			case 0:
				switch amount {
				case 1:
					s.decide(calledFirst(6, rapid.SampledFrom(answers).Draw(t, "answer").CloneVT()))
				case 2:
					s.decide(voidingDoubtful(6))
				default:
					s.decide(authorizing(6))
				}
			case 1, 2:
				s.decide(capturing(op, amount))
			case 3:
				if amount > 4 { // rarely: it ends the captures
					s.decide(voiding(op))
				}
			case 4, 5:
				s.decide(refunding(op, amount))
			case 6:
				s.decide(waking())
			case 7:
				s.decide(retrying(op))
			case 8:
				s.decide(resolving(op, amount > 3))
			case 9:
				if s.call != nil {
					s.take(Undelivered(s.p, s.call, "no leader", noon+1, noon))
				}
			default:
				if s.call != nil {
					s.answer(rapid.SampledFrom(answers).Draw(t, "answer").CloneVT())
				}
			}
		}
	})
}

// What has been promised counts, though the provider has not done it yet: nobody is told yes and later no.
func TestWhatIsUnderWayCounts(t *testing.T) {
	var s shop
	success := &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED}
	s.decide(authorizing(5))
	s.answer(success)
	for _, test := range []struct {
		name    string
		command *paymentpb.Command
		code    string
	}{
		{"3 of 5 are captured", capturing("c1", 3), ""},
		{"3 more are not", capturing("c2", 3), "payment_state"},
		{"2 more are", capturing("c3", 2), ""},
		{"and no more", capturing("c4", 1), "payment_state"},
		{"what is about to be captured can be refunded", refunding("r1", 4), ""},
		{"once", refunding("r2", 2), "payment_state"},
		{"and the rest", refunding("r3", 1), ""},
		{"and no more", refunding("r4", 1), "payment_state"},
		{"the rest can be voided at any time", voiding(""), ""},
		{"and then there is nothing to capture", capturing("c5", 1), "payment_state"},
	} {
		step := s.decide(test.command)
		got := ""
		if step.Rejection != nil {
			got = step.Rejection.Code
		}
		if got != test.code {
			t.Errorf("%s: %v, want %q", test.name, step.Rejection, test.code)
		}
	}
	// The first capture is declined: what counted on it is not sent at all, the rest is.
	s.answer(&paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED})
	for s.call != nil {
		s.answer(success)
	}
	for id, want := range map[string]paymentpb.OpState{
		"c1": paymentpb.OpState_OP_DECLINED, "c3": paymentpb.OpState_OP_SUCCEEDED, "r1": paymentpb.OpState_OP_CANCELED,
		"r3": paymentpb.OpState_OP_SUCCEEDED, VoidOp: paymentpb.OpState_OP_SUCCEEDED,
	} {
		if op := find(s.p, id); op.State != want {
			t.Errorf("operation %s is %s, want %s", id, op.State, want)
		}
	}
	if p := s.p; p.Captured != 2 || p.Refunded != 1 || p.Voided != 3 {
		t.Errorf("captured %d, refunded %d, voided %d; want 2, 1 and 3", p.Captured, p.Refunded, p.Voided)
	}
}

func TestPausesGrowAndThenAPersonIsTold(t *testing.T) {
	var s shop
	s.decide(authorizing(3))
	now, want := int64(noon), []int64{100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30_000, 30_000, 300_000, 300_000}
	for n, pause := range want {
		call := s.call
		step := Answer(s.p, call, &paymentpb.ProviderAnswer{Code: "timeout"}, now)
		s.take(step)
		if got := step.NotBefore - now; got != pause {
			t.Errorf("after answer %d without an outcome the pause is %d ms, want %d", n+1, got, pause)
		}
		if stuck := n+1 >= stuckAttempts; step.Op.Stuck != stuck || IsStuck(s.p) != stuck {
			t.Errorf("after answer %d: stuck is %v, want %v", n+1, step.Op.Stuck, stuck)
		}
		now = step.NotBefore
	}
	if o := Outcome(find(s.p, AuthorizeOp)); !o.Stuck || o.Cause != "timeout" || o.Status != paymentpb.OutcomeStatus_PENDING {
		t.Errorf("Outcome = %v, want a stuck one with its cause", o)
	}
	s.answer(&paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "ref"})
	if IsStuck(s.p) || Status(s.p) != Authorized {
		t.Errorf("after success: %v, want authorized and not stuck", s.p)
	}
}

func TestRefusals(t *testing.T) {
	long := string(make([]byte, maxIDBytes+1))
	authorize := func(change func(c *paymentpb.Authorize)) *paymentpb.Command {
		c := authorizing(3)
		change(c.GetAuthorize())
		return c
	}
	for _, test := range []struct {
		name    string
		command *paymentpb.Command
		code    string
	}{
		{"no body", &paymentpb.Command{}, "invalid_id"},
		{"no payment", authorize(func(c *paymentpb.Authorize) { c.PaymentId = "" }), "invalid_id"},
		{"a payment with a dot", authorize(func(c *paymentpb.Authorize) { c.PaymentId = "pay.1" }), "invalid_id"},
		{"a payment that is too long", authorize(func(c *paymentpb.Authorize) { c.PaymentId = long }), "invalid_id"},
		{"nothing to authorize", authorizing(0), "invalid_amount"},
		{"less than nothing", authorizing(-1), "invalid_amount"},
		{"too much", authorizing(MaxAmount + 1), "invalid_amount"},
		{"no currency", authorize(func(c *paymentpb.Authorize) { c.Currency = "EURO" }), "invalid_currency"},
		{"an order that is too long", authorize(func(c *paymentpb.Authorize) { c.OrderId = long }), "invalid_request"},
		{"a method that is too long", authorize(func(c *paymentpb.Authorize) { c.Method = long }), "invalid_request"},
		{"too late", authorize(func(c *paymentpb.Authorize) { c.Expires = noon - 1 }), "message_expired"},
		{"just in time", authorize(func(c *paymentpb.Authorize) { c.Expires = noon }), ""},
		{"a void without a name of its own", voiding(""), ""},
		{"a void that is called like the authorization", voiding(AuthorizeOp), "invalid_id"},
		{"a void with a name that is too long", voiding(long), "invalid_id"},
		{"a void of an authorization of nothing", voidingDoubtful(0), "invalid_amount"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, s := Decide(nil, test.command, noon)
			got := ""
			if s.Rejection != nil {
				got = s.Rejection.Code
			}
			if got != test.code {
				t.Errorf("Decide = %+v, want %q", s.Rejection, test.code)
			}
			if (p != nil) != (test.code == "") {
				t.Errorf("there is a payment: %v", p)
			}
		})
	}
}

// Only an authorization that asks for it, and that will not be refused, is called for first; and not when it is sent again.
func TestFirst(t *testing.T) {
	asking := func(change func(c *paymentpb.Authorize)) []byte {
		c := calledFirst(3, nil)
		change(c.GetAuthorize())
		return encode(t, c)
	}
	plain := asking(func(*paymentpb.Authorize) {})
	for _, test := range []struct {
		name    string
		payload []byte
		want    bool
	}{
		{"it asks", plain, true},
		{"it does not ask", encode(t, authorizing(3)), false},
		{"sent again", Again(plain), false},
		{"another command", encode(t, capturing("c1", 1)), false},
		{"broken", []byte("x"), false},
		{"empty", nil, false},
		{"refused: no payment", asking(func(c *paymentpb.Authorize) { c.PaymentId = "" }), false},
		{"refused: no amount", asking(func(c *paymentpb.Authorize) { c.Amount = 0 }), false},
		{"just in time", asking(func(c *paymentpb.Authorize) { c.Expires = noon }), true},
		{"refused: too late", asking(func(c *paymentpb.Authorize) { c.Expires = noon - 1 }), false},
	} {
		call, c := First(test.payload, noon)
		if got := call != nil; got != test.want || got != (c != nil) {
			t.Errorf("%s: call is %v, command %v", test.name, call, c)
		}
	}
	// It is the call that the payment would have sent.
	call, c := First(plain, noon)
	if _, step := Decide(nil, c, noon); !step.Call.EqualVT(call) {
		t.Errorf("First calls %v, the payment %v", call, step.Call)
	}
}

func TestUnsentVoidsNothing(t *testing.T) {
	if got, want := Unsent(encode(t, voidingDoubtful(3))), encode(t, voiding("")); !bytes.Equal(got, want) {
		t.Errorf("Unsent = %x, want %x", got, want)
	}
}

// An answer that comes when the authorization was due already is taken all the same: the provider has acted.
func TestAnAnswerIsNeverTooLate(t *testing.T) {
	c := calledFirst(3, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED})
	c.GetAuthorize().Expires = noon - 1
	if p, step := Decide(nil, c, noon); step.Rejection != nil || Status(p) != Authorized {
		t.Errorf("%v: %s, want it authorized", step.Rejection, Status(p))
	}
}

func TestAPaymentHasABoundedNumberOfOperations(t *testing.T) {
	var s shop
	s.decide(authorizing(MaxOps))
	s.answer(&paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED})
	for n := 1; n < MaxOps; n++ {
		if step := s.decide(capturing(fmt.Sprint("c", n), 1)); step.Rejection != nil {
			t.Fatalf("operation %d: %v", n, step.Rejection)
		}
	}
	if step := s.decide(capturing("more", 1)); step.Rejection == nil || step.Rejection.Code != "too_many_objects" {
		t.Errorf("one more: %v, want too_many_objects", step.Rejection)
	}
	if step := s.decide(capturing("c1", 1)); step.Rejection != nil || step.Op == nil {
		t.Errorf("the first again: %v, want its answer", step.Rejection)
	}
}

func TestTextsFromOutsideAreBoundedAndValid(t *testing.T) {
	long := ""
	for len(long) < maxTextBytes {
		long += "é€" // 5 bytes: the cut falls into a character
	}
	long = "x" + long
	for _, text := range []string{"", "declined", long, "\xff\xfebroken"} {
		got := bounded(text)
		if len(got) > maxTextBytes || !isValid(got) {
			t.Errorf("bounded(%.10q...) = %q of %d bytes", text, got, len(got))
		}
	}
}

func isValid(s string) bool {
	for _, r := range s {
		if r == '\uFFFD' {
			return false
		}
	}
	return true
}

// What most payments are: authorized, and captured.
func BenchmarkAuthorizeAndCapture(b *testing.B) {
	success := &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "psp_000001"}
	authorize, capture := authorizing(3), capturing("ful_1", 3)
	b.ReportAllocs()
	for b.Loop() {
		p, s := Decide(nil, authorize, noon)
		Answer(p, s.Call, success, noon)
		p, s = Decide(p, capture, noon)
		Answer(p, s.Call, success, noon)
	}
}

func TestAnAuthorizationCostsFewAllocations(t *testing.T) {
	success := &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "psp_000001"}
	authorize := authorizing(3)
	got := testing.AllocsPerRun(100, func() {
		p, s := Decide(nil, authorize, noon)
		Answer(p, s.Call, success, noon)
	})
	// The payment, the operation and its list, the call and its key; and the answer's list of settled keys with its key.
	if got > 7 {
		t.Errorf("Decide and Answer allocate %v times, want at most 7", got)
	}
}
