package paymentshard

import (
	"slices"
	"strings"

	"hanse/api/paymentpb"
	"hanse/internal/hlc"
	"hanse/internal/invariant"
	"hanse/internal/payment"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

const (
	// keepPayments is how many unchanged payments stay in memory, about 1 MB.
	keepPayments = 2_500
	// A page of payments has maxPage rows at most, defaultPage when the query does not say.
	maxPage     = 1000
	defaultPage = 100

	tagPayments = 'p'
	tagStuck    = 's'
)

type logic struct {
	state    *shard.State
	payments *shard.Table[*paymentpb.Payment]
	// stuck indexes the payments that need a person, so that listing them does not read all others.
	stuck *shard.Table[struct{}]
	// calls finds a payment's message in the outbox. It is derived from the outbox, at first use.
	calls map[string]outstanding
}

// outstanding is a message in the outbox, and the call in it if it was emitted since the shard was opened: decoding that again would
// be half of the allocations of an answer.
type outstanding struct {
	seq  uint64
	call *paymentpb.ProviderCall
}

// New returns the builder that [shard.Open] takes.
func New() func(*shard.State) shard.Logic {
	return func(s *shard.State) shard.Logic {
		return &logic{
			state:    s,
			payments: shard.NewTable(s, tagPayments, shard.ProtoCodec[paymentpb.Payment](), keepPayments),
			stuck:    shard.NewTable(s, tagStuck, presence, maxPage),
		}
	}
}

// presence is the codec of a row that says all by being there.
var presence = shard.Codec[struct{}]{
	Append: func(dst []byte, _ struct{}) []byte { return append(dst, 1) },
	Decode: func([]byte) (struct{}, error) { return struct{}{}, nil },
	Size:   func(struct{}) int { return 1 },
}

func (l *logic) Apply(tx *shard.Tx, payload []byte) shard.Result {
	var c paymentpb.Command
	if err := c.UnmarshalVT(payload); err != nil {
		return shard.Result{Code: reject.MalformedCommand, Detail: "payment command: " + err.Error()}
	}
	p, _ := l.payments.Find(payment.PaymentID(&c))
	before := rowOf(p)
	p, step := payment.Decide(p, &c, tx.Now.Millis())
	if r := step.Rejection; r != nil {
		return shard.Result{Code: r.Code, Field: r.Field, Detail: r.Detail}
	}
	l.carryOut(tx, p, before, step)
	if step.Op == nil {
		return shard.Result{}
	}
	return answer(p.Id, step.Op)
}

func (l *logic) Reply(tx *shard.Tx, m *shard.Message, r shard.Result) {
	call, p := l.callOf(m)
	delete(l.calls, m.Key)
	var a paymentpb.ProviderAnswer
	if r.Code != "" {
		a = paymentpb.ProviderAnswer{Code: r.Code + ": " + r.Detail}
	} else if err := a.UnmarshalVT(r.Payload); err != nil {
		a = paymentpb.ProviderAnswer{Code: "malformed_answer: " + err.Error()}
	}
	before := rowOf(p)
	l.carryOut(tx, p, before, payment.Answer(p, call, &a, tx.Now.Millis()))
}

func (l *logic) Stuck(tx *shard.Tx, m *shard.Message, s shard.Stuck) {
	call, p := l.callOf(m)
	before := rowOf(p)
	l.carryOut(tx, p, before, payment.Undelivered(p, call, s.Cause, s.NextTry.Millis(), tx.Now.Millis()))
}

// Due is never called: pauses are delays of outbox messages, and the service sets no timers.
func (l *logic) Due(*shard.Tx, string) {}

// callOf returns the call in a message of the outbox, and its payment: payments are never deleted.
func (l *logic) callOf(m *shard.Message) (*paymentpb.ProviderCall, *paymentpb.Payment) {
	p, ok := l.payments.Find(m.Key)
	if !ok {
		invariant.Check(false, "message %d is about payment %s, which is not there", m.Seq, m.Key)
	}
	if o := l.outstanding()[m.Key]; o.seq == m.Seq && o.call != nil {
		return o.call, p
	}
	call := new(paymentpb.ProviderCall) // emitted before the shard was opened
	if err := call.UnmarshalVT(m.Payload); err != nil {
		panic("paymentshard: own outbox message does not decode: " + err.Error())
	}
	return call, p
}

// row is what the tables held of a payment before a change.
type row struct{ exists, stuck bool }

func rowOf(p *paymentpb.Payment) row { return row{exists: p != nil, stuck: payment.IsStuck(p)} }

func (l *logic) carryOut(tx *shard.Tx, p *paymentpb.Payment, before row, step payment.Step) {
	if !step.Changed {
		return
	}
	if step.Recall {
		if o, ok := l.outstanding()[p.Id]; ok {
			tx.Finish(o.seq)
			delete(l.calls, p.Id)
		}
	}
	if step.Call != nil {
		calls := l.outstanding() // before the message is in the outbox, from which they may be loaded
		seq := tx.Emit(shard.PSP, p.Id, mustMarshal(step.Call), hlc.FromMillis(step.NotBefore))
		calls[p.Id] = outstanding{seq, step.Call}
	}
	for _, key := range step.Settled {
		tx.Settle(key)
	}
	if before.exists {
		l.payments.Put(p.Id, p)
	} else {
		l.payments.Insert(p.Id, p)
	}
	switch stuck := payment.IsStuck(p); {
	case stuck && !before.stuck:
		l.stuck.Put(p.Id, struct{}{})
		op := p.Ops[slices.IndexFunc(p.Ops, func(op *paymentpb.Op) bool { return op.Stuck })]
		tx.Note(shard.StuckNote{Key: p.OrderId, Step: strings.ToLower(strings.TrimPrefix(op.Kind.String(), "OP_")), Cause: op.Code})
	case !stuck && before.stuck:
		l.stuck.Delete(p.Id)
		tx.Note(shard.StuckNote{Key: p.OrderId, Over: true})
	}
}

// outstanding returns the payments' messages in the outbox, which was not loaded yet when the logic was made.
func (l *logic) outstanding() map[string]outstanding {
	if l.calls == nil {
		l.calls = make(map[string]outstanding)
		for _, m := range l.state.Outbox() {
			l.calls[m.Key] = outstanding{seq: m.Seq}
		}
	}
	return l.calls
}

func (l *logic) Query(payload []byte) shard.Result {
	var q paymentpb.Query
	if err := q.UnmarshalVT(payload); err != nil {
		return shard.Result{Code: reject.MalformedCommand, Detail: "payment query: " + err.Error()}
	}
	switch q := q.Body.(type) {
	case *paymentpb.Query_Find:
		p, ok := l.payments.Find(q.Find.GetId())
		if !ok {
			return shard.Result{Code: reject.PaymentNotFound, Detail: "there is no payment " + q.Find.GetId()}
		}
		return shard.Result{Payload: mustMarshal(p)}
	case *paymentpb.Query_Scan:
		return shard.Result{Payload: mustMarshal(l.scan(q.Scan))}
	}
	return shard.Result{Code: reject.MalformedCommand, Detail: "payment query without body"}
}

func (l *logic) scan(q *paymentpb.ScanPayments) *paymentpb.PaymentList {
	limit := int(q.Limit)
	if limit == 0 {
		limit = defaultPage
	}
	limit = min(limit, maxPage)
	from := ""
	if q.After != "" {
		from = q.After + "\x00"
	}
	list := new(paymentpb.PaymentList)
	add := func(p *paymentpb.Payment) bool {
		if len(list.Payments) == limit {
			list.More = true
			return false
		}
		list.Payments = append(list.Payments, p)
		return true
	}
	if !q.Stuck {
		l.payments.Scan("", from, func(_ string, p *paymentpb.Payment) bool { return add(p) })
		return list
	}
	l.stuck.Scan("", from, func(id string, _ struct{}) bool {
		p, _ := l.payments.Find(id)
		return add(p)
	})
	return list
}

// Settled reports whether an operation has its answer.
func (l *logic) Settled(key string) bool {
	r := l.View(key)
	return r.OK() && r.Pending == ""
}

func (l *logic) View(key string) shard.Result {
	id, op, _ := payment.SplitKey(key)
	p, ok := l.payments.Find(id)
	if !ok {
		return shard.Result{Code: reject.PaymentNotFound, Detail: "there is no payment " + id}
	}
	o := payment.Find(p, op)
	if o == nil {
		return shard.Result{Code: reject.PaymentNotFound, Detail: "payment " + id + " has no operation " + op}
	}
	return answer(id, o)
}

// answer is the result of a command about op.
func answer(paymentID string, op *paymentpb.Op) shard.Result {
	outcome := payment.Outcome(op)
	r := shard.Result{Payload: mustMarshal(outcome)}
	if outcome.Status == paymentpb.OutcomeStatus_PENDING {
		r.Pending = payment.Key(paymentID, op.Id)
	}
	return r
}

// mustMarshal encodes a message of ours, which can only fail by a bug of the generated code.
func mustMarshal(m interface{ MarshalVT() ([]byte, error) }) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		panic("paymentshard: encode: " + err.Error())
	}
	return data
}
