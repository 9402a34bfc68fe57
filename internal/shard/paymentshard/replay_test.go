package paymentshard_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"hanse/api/paymentpb"
	"hanse/internal/hlc"
	"hanse/internal/payment"
	"hanse/internal/proptest"
	"hanse/internal/shard"
	"hanse/internal/shardtest"
)

// A machine that crashes is as good as one that never stops. At any time a payment has a
// message in the outbox exactly while an operation is under way, and the list of stuck payments names those that are.
func TestSnapshotAndTailAreTheWholeLog(t *testing.T) {
	seen := map[string]int{}
	missing := func() []string { return proptest.Unseen(seen, "a stuck payment") }
	proptest.Reach(t, missing, func(rt *rapid.T) {
		whole, crashes := newDesk(t), newDesk(t)
		shardtest.Replay(rt, whole.Machine, crashes.Machine, func() shard.Entry { return randomEntry(rt, whole) }, func(shard.Applied) {
			seen["a stuck payment"] += sound(rt, whole)
		})
	})
}

// randomEntry draws an entry with some commands. Time goes on by up to ten minutes.
func randomEntry(t *rapid.T, d *desk) shard.Entry {
	d.now += rapid.SampledFrom([]int64{0, 10, 1000, 600_000}).Draw(t, "time")
	e := shard.Entry{Time: hlc.FromMillis(d.now)}
	for range rapid.IntRange(1, 3).Draw(t, "commands") {
		e.Commands = append(e.Commands, randomCommand(t, d))
	}
	return e
}

func randomCommand(t *rapid.T, d *desk) shard.Command {
	id := rapid.SampledFrom([]string{"p1", "p2", "p3"}).Draw(t, "payment")
	op := rapid.SampledFrom([]string{"auth", "void", "f1", "f2", "r1", "r2"}).Draw(t, "op")
	amount := rapid.Int64Range(1, 5).Draw(t, "amount")
	what := rapid.IntRange(0, 15).Draw(t, "what")
	if open := d.Outbox(); what >= 8 && len(open) > 0 {
		m := rapid.SampledFrom(open).Draw(t, "message")
		if what == 8 {
			s := shard.Stuck{Seq: m.Seq, Cause: "no courier", NextTry: hlc.FromMillis(d.now + 1000)}
			return shard.Command{Kind: shard.KindStuck, Payload: shard.EncodeStuck(&s)}
		}
		names := []string{"succeeded", "succeeded", "succeeded", "unknown", "declined", "not-found", "not-sent"}
		a := &paymentpb.ProviderAnswer{Status: statuses[rapid.SampledFrom(names).Draw(t, "answer")], Reference: "ref"}
		r := shard.Result{Payload: encode(d.T, a)}
		return shard.Command{Kind: shard.KindReply, Payload: shard.EncodeReply(m.Seq, &r)}
	}
	c := &paymentpb.Command{}
	switch what {
	case 0, 1, 8, 9, 10, 11:
		c.Body = &paymentpb.Command_Authorize{Authorize: &paymentpb.Authorize{PaymentId: id, OrderId: "o1", Amount: 5, Currency: "EUR"}}
	case 2, 12, 13:
		c = capture(id, op, amount)
	case 3:
		c.Body = &paymentpb.Command_Void{Void: &paymentpb.Void{PaymentId: id}}
	case 4, 14:
		c.Body = &paymentpb.Command_Refund{Refund: &paymentpb.Refund{PaymentId: id, Op: op, Amount: amount}}
	case 5:
		c.Body = &paymentpb.Command_Wake{Wake: &paymentpb.Wake{PaymentId: id}}
	case 6:
		c.Body = &paymentpb.Command_Retry{Retry: &paymentpb.RetryOp{PaymentId: id, Op: op}}
	default:
		c.Body = &paymentpb.Command_Resolve{Resolve: &paymentpb.ResolveOp{PaymentId: id, Op: op, Succeeded: amount > 2, Operator: "ann", Evidence: "x"}}
	}
	return shard.Command{Kind: shard.KindLogic, Payload: encode(d.T, c)}
}

// sound checks the promises of the shard through its queries, and returns how many payments are stuck.
func sound(t *rapid.T, d *desk) int {
	list := func(stuck bool) []*paymentpb.Payment {
		r := d.Query(encode(d.T, &paymentpb.Query{Body: &paymentpb.Query_Scan{Scan: &paymentpb.ScanPayments{Limit: 1000, Stuck: stuck}}}))
		var l paymentpb.PaymentList
		if err := l.UnmarshalVT(r.Payload); err != nil || !r.OK() {
			t.Fatalf("scan: %v %v", r, err)
		}
		return l.Payments
	}
	var wantStuck, gotStuck, wantCalls, gotCalls []string
	for _, p := range list(false) {
		if err := payment.Check(p); err != nil {
			t.Fatalf("%s: %v", p.Id, err)
		}
		if payment.IsStuck(p) {
			wantStuck = append(wantStuck, p.Id)
		}
		for _, op := range p.Ops {
			if op.State == paymentpb.OpState_OP_SENT || op.State == paymentpb.OpState_OP_UNKNOWN {
				wantCalls = append(wantCalls, payment.Key(p.Id, op.Id))
			}
		}
	}
	for _, p := range list(true) {
		gotStuck = append(gotStuck, p.Id)
	}
	for _, m := range d.Outbox() {
		var c paymentpb.ProviderCall
		if err := c.UnmarshalVT(m.Payload); err != nil {
			t.Fatal(err)
		}
		gotCalls = append(gotCalls, c.Key)
	}
	slices.Sort(gotCalls)
	slices.Sort(wantCalls)
	if !slices.Equal(gotCalls, wantCalls) {
		t.Fatalf("the outbox has calls for %v, operations under way are %v", gotCalls, wantCalls)
	}
	if !slices.Equal(gotStuck, wantStuck) {
		t.Fatalf("listed as stuck: %v, stuck: %v", gotStuck, wantStuck)
	}
	return len(gotStuck)
}

// BenchmarkAuthorize is what a shard does for each order: it takes the authorization, and later the provider's answer.
func BenchmarkAuthorize(b *testing.B) {
	const batch = 64
	d := newDesk(b)
	answer := shard.Result{Payload: encode(b, &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Reference: "psp_000001", Amount: 3998})}
	var n int
	b.ReportAllocs()
	for b.Loop() { // an operation is one payment; entries carry many
		if n%batch == 0 {
			b.StopTimer()
			commands := make([]shard.Command, batch)
			for i := range commands {
				commands[i] = shard.Command{Kind: shard.KindLogic, Payload: encode(b, &paymentpb.Command{Body: &paymentpb.Command_Authorize{Authorize: &paymentpb.Authorize{
					PaymentId: fmt.Sprintf("pay_%026d", n+i), OrderId: fmt.Sprintf("ord_%026d", n+i), Amount: 3998, Currency: "EUR", Method: "pm_card",
				}}})}
			}
			replies := make([]shard.Command, batch)
			b.StartTimer()
			a := d.Enter(d.now, commands...)
			if len(a.Emitted) != batch {
				b.Fatalf("%d payments sent %d messages", batch, len(a.Emitted))
			}
			b.StopTimer()
			for i, m := range a.Emitted {
				replies[i] = shard.Command{Kind: shard.KindReply, Payload: shard.EncodeReply(m.Seq, &answer)}
			}
			b.StartTimer()
			if a := d.Enter(d.now, replies...); len(a.Emitted) != 0 || len(a.Settled) != batch {
				b.Fatalf("%d answers sent %d messages and settled %d", batch, len(a.Emitted), len(a.Settled))
			}
			b.StopTimer()
			d.WriteBack()
			b.StartTimer()
		}
		n++
	}
}
