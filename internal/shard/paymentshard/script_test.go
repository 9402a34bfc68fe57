package paymentshard_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"hanse/api/paymentpb"
	"hanse/internal/hlc"
	"hanse/internal/payment"
	"hanse/internal/shard"
	"hanse/internal/shard/paymentshard"
	"hanse/internal/shardtest"
)

// A script drives one payment shard by hand: it plays the orders, the operators, the provider and the clock. Each command shows the
// answer, the calls that leave, the messages that are finished and the operations that settle.
func TestScripts(t *testing.T) {
	shardtest.Scripts(t, "testdata/scripts", func(t testing.TB) shardtest.Desk { return newDesk(t) })
}

// desk is a payment shard.
type desk struct {
	*shardtest.Machine
	now int64
}

func newDesk(t testing.TB) *desk {
	return &desk{shardtest.New(t, paymentshard.New()), 1_700_000_000_000}
}

var statuses = map[string]paymentpb.ProviderStatus{
	"succeeded": paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, "declined": paymentpb.ProviderStatus_PROVIDER_DECLINED,
	"not-found": paymentpb.ProviderStatus_PROVIDER_NOT_FOUND, "not-sent": paymentpb.ProviderStatus_PROVIDER_NOT_SENT,
	"unknown": paymentpb.ProviderStatus_PROVIDER_UNKNOWN,
}

// Do implements shardtest.Desk.
func (d *desk) Do(td *datadriven.TestData) string {
	arg := func(name string) (v string) {
		for _, a := range td.CmdArgs {
			if a.Key == name && len(a.Vals) > 0 {
				return a.Vals[0]
			}
		}
		return ""
	}
	num := func(name string) int64 {
		if arg(name) == "" {
			return 0
		}
		n, err := strconv.ParseInt(arg(name), 10, 64)
		if err != nil {
			d.T.Fatalf("%s: %s: %v", td.Pos, name, err)
		}
		return n
	}
	span := func(name string) time.Duration {
		if arg(name) == "" {
			return 0
		}
		after, err := time.ParseDuration(arg(name))
		if err != nil {
			d.T.Fatalf("%s: %s: %v", td.Pos, name, err)
		}
		return after
	}
	word := func(i int) string { // the words without a value come first
		if i >= len(td.CmdArgs) || len(td.CmdArgs[i].Vals) > 0 {
			return ""
		}
		return td.CmdArgs[i].Key
	}
	seq := func() uint64 {
		n, err := strconv.ParseUint(word(0), 10, 64)
		if err != nil {
			d.T.Fatalf("%s: %v", td.Pos, err)
		}
		return n
	}
	switch td.Cmd {
	case "authorize":
		c := &paymentpb.Authorize{PaymentId: word(0), OrderId: "o1", Amount: num("amount"), Currency: "EUR", Method: arg("method")}
		if td.HasArg("expires") {
			c.Expires = d.now + span("expires").Milliseconds()
		}
		return d.apply(&paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: c}})
	case "capture":
		return d.apply(capture(word(0), word(1), num("amount")))
	case "void":
		return d.apply(&paymentpb.Command{Body: &paymentpb.Command_Void{Void: &paymentpb.Void{PaymentId: word(0), Op: word(1)}}})
	case "refund":
		return d.apply(&paymentpb.Command{Body: &paymentpb.Command_Refund{Refund: &paymentpb.Refund{PaymentId: word(0), Op: word(1), Amount: num("amount")}}})
	case "wake":
		return d.apply(&paymentpb.Command{Body: &paymentpb.Command_Wake{Wake: &paymentpb.Wake{PaymentId: word(0)}}})
	case "retry":
		return d.apply(&paymentpb.Command{Body: &paymentpb.Command_Retry{Retry: &paymentpb.RetryOp{PaymentId: word(0), Op: word(1), RefuseEnded: arg("refuse") == "ended"}}})
	case "resolve":
		return d.apply(&paymentpb.Command{Body: &paymentpb.Command_Resolve{Resolve: &paymentpb.ResolveOp{
			PaymentId: word(0), Op: word(1), Succeeded: word(2) == "succeeded", Operator: arg("operator"), Evidence: arg("evidence"),
			RefuseEnded: arg("refuse") == "ended",
		}}})
	case "malformed":
		return d.entry(shard.Command{Kind: shard.KindLogic, Payload: []byte(td.Input)})

	case "answer": // the provider's, to a message
		status, ok := statuses[word(1)]
		r := shard.Result{Code: arg("error"), Payload: encode(d.T, &paymentpb.ProviderAnswer{
			Status: status, Reference: arg("reference"), Code: arg("code"), Amount: num("amount"),
		})}
		if td.HasArg("garbage") {
			r.Payload = []byte{0xff}
		} else if !ok && r.OK() {
			d.T.Fatalf("%s: unknown answer %q", td.Pos, word(1))
		}
		return d.entry(shard.Command{Kind: shard.KindReply, Payload: shard.EncodeReply(seq(), &r)})
	case "undelivered": // a message that could not be delivered for long
		s := shard.Stuck{Seq: seq(), Attempts: 20, NextTry: hlc.FromMillis(d.now + span("next").Milliseconds()), Cause: arg("cause")}
		return d.entry(shard.Command{Kind: shard.KindStuck, Payload: shard.EncodeStuck(&s)})
	case "wait":
		d.now += span("for").Milliseconds()
		return ""
	case "outbox":
		var b strings.Builder
		for _, m := range d.Outbox() {
			b.WriteString(d.message(m))
		}
		return b.String()

	case "payment":
		r := d.Query(encode(d.T, &paymentpb.Query{Body: &paymentpb.Query_Find{Find: &paymentpb.FindPayment{Id: word(0)}}}))
		if !r.OK() {
			return d.result(r)
		}
		p := new(paymentpb.Payment)
		if err := p.UnmarshalVT(r.Payload); err != nil {
			d.T.Fatal(err)
		}
		return d.payment(p)
	case "payments":
		r := d.Query(encode(d.T, &paymentpb.Query{Body: &paymentpb.Query_Scan{Scan: &paymentpb.ScanPayments{
			After: arg("after"), Limit: uint32(num("limit")), Stuck: td.HasArg("stuck"),
		}}}))
		list := new(paymentpb.PaymentList)
		if err := list.UnmarshalVT(r.Payload); err != nil || !r.OK() {
			d.T.Fatalf("%s: %v %v", td.Pos, r, err)
		}
		var b strings.Builder
		for _, p := range list.Payments {
			fmt.Fprintf(&b, "%s %s\n", p.Id, payment.Status(p))
		}
		if list.More {
			b.WriteString("more\n")
		}
		return b.String()
	case "view": // what somebody who waits is told
		return d.result(d.View(word(0) + "." + word(1)))
	case "ask-nothing":
		return d.result(d.Query(nil))
	}
	d.T.Fatalf("%s: unknown command %s", td.Pos, td.Cmd)
	return ""
}

func capture(paymentID, op string, amount int64) *paymentpb.Command {
	return &paymentpb.Command{Body: &paymentpb.Command_Capture{Capture: &paymentpb.Capture{PaymentId: paymentID, Op: op, Amount: amount}}}
}

func encode(t testing.TB, m interface{ MarshalVT() ([]byte, error) }) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (d *desk) apply(c *paymentpb.Command) string {
	return d.entry(shard.Command{Kind: shard.KindLogic, Payload: encode(d.T, c)})
}

func (d *desk) entry(c shard.Command) string {
	a := d.Enter(d.now, c)
	var b strings.Builder
	b.WriteString(d.result(a.Results[0]))
	if len(a.Finished) > 0 {
		fmt.Fprintf(&b, "finished %v\n", a.Finished)
	}
	for _, m := range a.Emitted {
		b.WriteString("-> " + d.message(m))
	}
	if len(a.Settled) > 0 {
		fmt.Fprintf(&b, "settled %s\n", strings.Join(a.Settled, ", "))
	}
	return b.String()
}

func (d *desk) result(r shard.Result) string {
	if !r.OK() {
		return fmt.Sprintf("%s: %s\n", r.Code, r.Detail)
	}
	if len(r.Payload) == 0 && r.Pending == "" {
		return "ok\n"
	}
	o := new(paymentpb.Outcome)
	if err := o.UnmarshalVT(r.Payload); err != nil {
		d.T.Fatal(err)
	}
	text := strings.ToLower(o.Status.String())
	if o.Status == paymentpb.OutcomeStatus_SUCCEEDED {
		text += fmt.Sprintf(" %d", o.Amount)
	}
	for _, s := range []string{o.Code, o.ProviderReference} {
		if s != "" {
			text += ", " + s
		}
	}
	if o.Stuck {
		text += ", stuck: " + o.Cause
	}
	if o.Attempts > 0 {
		text += fmt.Sprintf(", %d attempts", o.Attempts)
	}
	if r.Pending != "" {
		text += ", wait for " + r.Pending
	}
	return text + "\n"
}

func (d *desk) message(m *shard.Message) string {
	c := new(paymentpb.ProviderCall)
	if err := c.UnmarshalVT(m.Payload); err != nil {
		d.T.Fatal(err)
	}
	if m.To != shard.PSP || m.Key != c.PaymentId || c.Key != payment.Key(c.PaymentId, c.Op) {
		d.T.Errorf("message %d about %s to %s has the call %v", m.Seq, m.Key, m.To, c)
	}
	verb := "call"
	if c.Query {
		verb = "ask"
	}
	text := fmt.Sprintf("%d %s %s: %s %d %s of %s, attempt %d", m.Seq, verb, c.Key, payment.KindName(c.Kind), c.Amount, c.Currency, c.OrderId, c.Attempt)
	if c.Method != "" {
		text += " by " + c.Method
	}
	if c.Authorization != "" {
		text += ", authorization " + c.Authorization
	}
	if m.NotBefore != 0 {
		text += fmt.Sprintf(", in %v", time.Duration(m.NotBefore.Millis()-d.now)*time.Millisecond)
	}
	return text + "\n"
}

func (d *desk) payment(p *paymentpb.Payment) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: requested %d, authorized %d, captured %d, voided %d, refunded %d\n",
		p.Id, payment.Status(p), p.Requested, p.Authorized, p.Captured, p.Voided, p.Refunded)
	for _, op := range p.Ops {
		fmt.Fprintf(&b, "  %s: %s %d %s", op.Id, payment.KindName(op.Kind), op.Amount, strings.ToLower(strings.TrimPrefix(op.State.String(), "OP_")))
		for _, s := range []string{op.Code, op.ProviderReference} {
			if s != "" {
				b.WriteString(", " + s)
			}
		}
		if op.Stuck {
			b.WriteString(", stuck")
		}
		if op.NextTry > d.now {
			fmt.Fprintf(&b, ", next in %v", time.Duration(op.NextTry-d.now)*time.Millisecond)
		}
		b.WriteString("\n")
	}
	return b.String()
}
