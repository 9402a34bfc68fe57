package ordershard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/hlc"
	"hanse/internal/id"
	"hanse/internal/order"
	"hanse/internal/reject"
	"hanse/internal/saga"
	"hanse/internal/shard"
)

const (
	// keepOrders is how many unchanged orders stay in memory, some 3 KB each, and 7 KB in a shop whose orders have 25 lines: those that are
	// under way or were a moment ago. Older ones are read again. More would not be faster, but the garbage collector looks at every line of each:
	// with 4,000 of three shards it had two seconds of work at a time, and orders waited for it.
	keepOrders = 1_000
	// refusedPause is when a step that must succeed and was refused is sent again. It doubles refusedDoublings times,
	// to 5 hours: a provider that says no does not change its mind by being asked more often.
	refusedPause     = 5 * time.Minute
	refusedDoublings = 6
	// endSuffix makes the key under which callers wait for the end of an order that is being undone.
	endSuffix = "/end"
	// lapsedFor is how long an ID stays lapsed, as long as answers under idempotency keys are kept: no request is on its way that long.
	lapsedFor = shard.IdempotencyTTL
	// laneMark comes between an order and a lane of its messages; no ID contains it.
	laneMark = "/"
)

// New returns the builder for [shard.Open]. Layout tells where stock and payments live.
func New(layout shard.Layout) func(*shard.State) shard.Logic {
	return func(s *shard.State) shard.Logic {
		return &logic{
			state: s, layout: layout, shardOf: layout.InventoryOf,
			files:     shard.NewTable(s, 'o', fileCodec, keepOrders),
			customers: shard.NewTable(s, 'c', presence, 1000),
			stuck:     shard.NewTable(s, 's', presence, 1000),
		}
	}
}

// presence is the codec of a row that says all by being there.
var presence = shard.Codec[struct{}]{
	Append: func(dst []byte, _ struct{}) []byte { return append(dst, 1) },
	Decode: func([]byte) (struct{}, error) { return struct{}{}, nil },
	Size:   func(struct{}) int { return 1 },
}

type logic struct {
	state     *shard.State
	layout    shard.Layout
	shardOf   saga.ShardOf
	files     *shard.Table[*file]
	customers *shard.Table[struct{}]
	// stuck indexes the orders that have a stuck step, so that listing them does not look at all that are on their way.
	stuck *shard.Table[struct{}]
	sends []saga.Send // scratch
	// ahead has the number of the authorization in the outbox of each order that is [order.Ahead], and claiming that of each order whose claim has not
	// been answered, 0 for none yet: they have not left. Both are nil when they are to be made from the outbox.
	ahead, claiming map[string]uint64
}

func (l *logic) Apply(tx *shard.Tx, payload []byte) shard.Result {
	var c orderpb.Command
	if err := c.UnmarshalVT(payload); err != nil {
		return malformed("order command: %v", err)
	}
	l.mark(nil)
	now := tx.Now.Millis()
	switch c := c.Body.(type) {
	case *orderpb.Command_Place:
		return l.place(tx, c.Place, now)
	case *orderpb.Command_Cancel:
		f, r := l.find(c.Cancel.Id)
		if r != nil {
			return rejected(r)
		}
		return l.cancel(tx, f, c.Cancel, now)
	case *orderpb.Command_Fulfill:
		return l.change(tx, c.Fulfill.Id, c.Fulfill.FulfillmentId, func(f *file) ([]*orderpb.Event, *reject.Rejection) {
			return order.DecideFulfill(&f.order, c.Fulfill, now)
		})
	case *orderpb.Command_ReturnItems:
		return l.change(tx, c.ReturnItems.Id, c.ReturnItems.ReturnId, func(f *file) ([]*orderpb.Event, *reject.Rejection) {
			return order.DecideReturn(&f.order, c.ReturnItems, now)
		})
	case *orderpb.Command_RefundAmount:
		return l.change(tx, c.RefundAmount.Id, c.RefundAmount.RefundId, func(f *file) ([]*orderpb.Event, *reject.Rejection) {
			return order.DecideRefund(&f.order, c.RefundAmount, now)
		})
	case *orderpb.Command_AskHold:
		return l.askHold(tx, c.AskHold)
	case *orderpb.Command_Authorized:
		return l.change(tx, c.Authorized.Id, "", func(f *file) ([]*orderpb.Event, *reject.Rejection) {
			return order.PaymentAuthorized(&f.order, c.Authorized.Amount, c.Authorized.ProviderReference, now), nil
		})
	case *orderpb.Command_RetryStep:
		return l.change(tx, c.RetryStep.Id, "", func(f *file) ([]*orderpb.Event, *reject.Rejection) {
			return l.retry(tx, &f.order, c.RetryStep, now)
		})
	case *orderpb.Command_ResolveStep:
		return l.change(tx, c.ResolveStep.Id, "", func(f *file) ([]*orderpb.Event, *reject.Rejection) {
			return l.resolve(tx, f, c.ResolveStep, now)
		})
	case *orderpb.Command_ClaimKey:
		return tx.Claim(c.ClaimKey.Caller, c.ClaimKey.Key, c.ClaimKey.RequestHash)
	}
	return malformed("order command without a body")
}

func (l *logic) place(tx *shard.Tx, p *orderpb.Place, now int64) shard.Result {
	f, placed := l.files.Find(p.Id)
	if !placed {
		if tx.Waits(p.Id) {
			return shard.Result{Code: shard.CodeAgain, Detail: fmt.Sprintf("order %s was not there when its stock was asked about", p.Id)}
		}
		events, r := order.DecidePlace(p, l.shardOf, now)
		if r != nil {
			return rejected(r)
		}
		if p.Claim != nil {
			if events[0].GetPlaced().Order.Total == 0 {
				return malformed("a free order does not claim its key: nothing waits for the answer")
			}
			l.claiming[p.Id] = 0
			tx.Emit(l.layout.KeyHome(p.Claim.Key), p.Id, saga.ClaimCommand(p.Claim), 0)
		}
		f = newFile()
		l.record(tx, f, events)
		o := &f.order
		if o.CustomerId != "" {
			l.customers.Insert(customerKey(o), struct{}{})
		}
		if o.SettledRevision == 0 {
			tx.Wake(hlc.FromMillis(o.Deadline), o.Id)
		}
	}
	if f.order.SettledRevision == 0 {
		return shard.Result{Pending: f.order.Id}
	}
	return l.outcome(f)
}

// askHold answers the inventory. Stock that is held tentatively for an order that is not on record goes back, so the order's ID lapses: the place that
// comes after all is refused, for it would count on that stock. An ID that has a timer and no order has lapsed.
func (l *logic) askHold(tx *shard.Tx, c *orderpb.AskHold) shard.Result {
	f, ok := l.files.Find(c.Id)
	if !ok && c.Tentative {
		tx.Wake(tx.Now+hlc.FromMillis(lapsedFor.Milliseconds()), c.Id)
	}
	return shard.Result{Payload: encode(&orderpb.HoldAnswer{Keep: ok && order.KeepsHold(&f.order, c.Shard)})}
}

func (l *logic) cancel(tx *shard.Tx, f *file, c *orderpb.Cancel, now int64) shard.Result {
	o := &f.order
	events, r := order.DecideCancel(o, c, now)
	if r != nil {
		return rejected(r)
	}
	l.record(tx, f, events)
	result := shard.Result{Payload: encode(&orderpb.Receipt{Id: o.Id, Revision: o.Revision})}
	if o.State == order.Canceling {
		result.Pending = o.Id + endSuffix
	}
	return result
}

// change carries out a command on an existing order. The answer is a receipt, which names the object the command made.
func (l *logic) change(tx *shard.Tx, orderID, object string, decide func(*file) ([]*orderpb.Event, *reject.Rejection)) shard.Result {
	f, r := l.find(orderID)
	if r != nil {
		return rejected(r)
	}
	events, r := decide(f)
	if r != nil {
		return rejected(r)
	}
	l.record(tx, f, events)
	return shard.Result{Payload: encode(&orderpb.Receipt{Id: f.order.Id, Revision: f.order.Revision, ObjectId: object})}
}

func (l *logic) find(orderID string) (*file, *reject.Rejection) {
	f, ok := l.files.Find(orderID)
	if !ok {
		return nil, &reject.Rejection{Code: reject.OrderNotFound, Detail: fmt.Sprintf("there is no order %.64s", orderID)}
	}
	return f, nil
}

// record makes events happen: it publishes and folds them, and sends what follows.
func (l *logic) record(tx *shard.Tx, f *file, events []*orderpb.Event) {
	if len(events) == 0 {
		return
	}
	o := &f.order
	isNew := o.Revision == 0
	settled, ended, stuck := o.SettledRevision != 0, order.Ended(o.State), len(o.Stuck) > 0
	sends := l.sends[:0]
	for _, e := range events {
		f.positions = append(f.positions, tx.Publish(encode(e)))
		before, ahead := o.Payment, l.ahead[o.Id]
		order.Fold(o, e)
		sends = saga.Follow(sends, o, e, before, l.shardOf)
		if ahead != 0 && !order.Ahead(o) {
			l.unahead(tx, o, ahead)
		}
		if order.Compensating(o.State) {
			l.withdraw(tx, o)
		}
	}
	if isNew {
		l.files.Insert(o.Id, f)
	} else {
		l.files.Put(o.Id, f)
	}
	switch {
	case !stuck && len(o.Stuck) > 0:
		l.stuck.Put(o.Id, struct{}{})
		tx.Note(shard.StuckNote{Key: o.Id, Step: o.Stuck[0].Step, Cause: o.Stuck[0].Cause})
	case stuck && len(o.Stuck) == 0:
		l.stuck.Delete(o.Id)
		tx.Note(shard.StuckNote{Key: o.Id, Over: true})
	}
	l.send(tx, o, sends)
	clear(sends)
	l.sends = sends
	if !settled && o.SettledRevision != 0 {
		tx.Settle(o.Id)
		if !isNew {
			tx.Unwake(o.Id)
		}
	}
	if !ended && order.Ended(o.State) {
		tx.Settle(o.Id + endSuffix)
	}
}

func (l *logic) send(tx *shard.Tx, o *orderpb.Order, sends []saga.Send) {
	var payload []byte
	for i := range sends {
		s := &sends[i]
		if s.Inventory == nil {
			seq := tx.Emit(l.paymentShard(o), o.Id, encode(s.Payment), 0)
			if s.Step == saga.Authorize {
				l.authorizing(o, 0, seq)
			}
			continue
		}
		if i == 0 || s.Inventory != sends[i-1].Inventory {
			payload = encode(s.Inventory)
		}
		tx.Emit(shard.NewID(shard.Inventory, int(s.Leg)), o.Id, payload, 0)
	}
}

// mark makes ahead and claiming when the machine has just been opened: from the outbox, and the message that has left it this moment, nil for none.
func (l *logic) mark(left *shard.Message) {
	if l.ahead != nil {
		return
	}
	messages := l.state.Outbox()
	if left != nil {
		messages = append(messages, left)
	}
	l.ahead, l.claiming = make(map[string]uint64), make(map[string]uint64)
	authorizations := make(map[string]uint64)
	for _, m := range messages {
		switch step, _ := saga.StepOf(serviceOf(m), m.Payload); step {
		case saga.Authorize:
			authorizations[orderOf(m)] = m.Seq
			if f, ok := l.files.Find(orderOf(m)); ok && order.Ahead(&f.order) {
				l.ahead[f.order.Id] = m.Seq
			}
		case saga.Claim:
			l.claiming[orderOf(m)] = 0
		}
	}
	for orderID := range l.claiming {
		l.claiming[orderID] = authorizations[orderID]
	}
}

// authorizing takes note of the authorization of an order, which takes the place of the message before, 0 for none.
func (l *logic) authorizing(o *orderpb.Order, before, seq uint64) {
	if l.ahead[o.Id] == before && order.Ahead(o) {
		l.ahead[o.Id] = seq
	}
	if was, claims := l.claiming[o.Id]; claims && was == before {
		l.claiming[o.Id] = seq
	}
}

// serviceOf is what an order's message is for.
func serviceOf(m *shard.Message) saga.Service {
	switch m.To.Service() {
	case shard.Inventory:
		return saga.Inventory
	case shard.Payment:
		return saga.Payment
	}
	return saga.Keys
}

// unahead takes note that an order is not ahead any more. When it is being undone, its authorization is taken out of the outbox: it may not
// have left yet. One that has left all the same is followed by a void, in whatever order they arrive.
func (l *logic) unahead(tx *shard.Tx, o *orderpb.Order, authorization uint64) {
	delete(l.ahead, o.Id)
	if order.Compensating(o.State) {
		tx.Finish(authorization)
	}
}

// withdraw takes the authorization of an order that is being undone out of the outbox, if its claim has not been answered: then it has not left. What
// undoes the order must not wait for who keeps its key, nor for a charge that nobody wants any more.
func (l *logic) withdraw(tx *shard.Tx, o *orderpb.Order) {
	seq, claims := l.claiming[o.Id]
	if !claims {
		return
	}
	delete(l.claiming, o.Id)
	if seq != 0 {
		tx.Finish(seq)
	}
}

// paymentShard is where an order's payment is: it has the order's slot.
func (l *logic) paymentShard(o *orderpb.Order) shard.ID {
	sl, err := id.Parse(id.Order, o.Id)
	if err != nil {
		panic("ordershard: an order's own ID is invalid: " + err.Error())
	}
	return l.layout.Shard(shard.Payment, sl)
}

// Reply takes the answer to a step.
func (l *logic) Reply(tx *shard.Tx, m *shard.Message, r shard.Result) {
	l.mark(m)
	f, ok := l.files.Find(orderOf(m))
	if !ok {
		panic("ordershard: message of an unknown order " + m.Key)
	}
	o, now := &f.order, tx.Now.Millis()
	sent := l.sent(o, m, r.OK())
	var out saga.Outcome
	if !r.OK() {
		out.Refused = &reject.Rejection{Code: r.Code, Field: r.Field, Detail: r.Detail}
	} else if m.To.Service() == shard.Payment {
		out.Payment = new(paymentpb.Outcome)
		if err := out.Payment.UnmarshalVT(r.Payload); err != nil {
			out.Refused = &reject.Rejection{Code: reject.MalformedCommand, Detail: "outcome: " + err.Error()}
		}
	}
	events, unexpected := saga.Answer(o, sent, out, now)
	l.record(tx, f, events)
	if sent.Step == saga.Claim {
		delete(l.claiming, o.Id)
	}
	if unexpected != "" {
		l.postpone(tx, f, m, unexpected, out.Refused == nil, now)
		return
	}
	l.record(tx, f, order.StepResolved(o, m.Seq, order.DecisionDone, "", "", now))
}

// sent reads a message back, and for the steps whose kind says all no more than that.
func (l *logic) sent(o *orderpb.Order, m *shard.Message, ok bool) saga.Sent {
	if step, known := saga.StepOf(serviceOf(m), m.Payload); known && ok {
		return saga.Sent{Step: step, Leg: uint32(m.To.Index())}
	}
	return l.read(o, m)
}

func (l *logic) read(o *orderpb.Order, m *shard.Message) saga.Sent {
	sent, err := saga.Read(o, serviceOf(m), uint32(m.To.Index()), m.Payload, l.shardOf)
	if err != nil {
		panic("ordershard: own outbox message does not decode: " + err.Error())
	}
	return sent
}

// postpone keeps a step that must succeed and was refused: it is sent again after a pause, and people can see it. What the
// provider has declined it declines for ever under the same key, so that goes out under another. Everything else keeps its key:
// it may have been done.
func (l *logic) postpone(tx *shard.Tx, f *file, m *shard.Message, cause string, declined bool, now int64) {
	o := &f.order
	sent, payload := l.read(o, m), m.Payload
	if declined {
		payload = again(o, sent)
	}
	step := &orderpb.StuckStep{
		Step: sent.Step.String(), Cause: cause, Since: now, Attempts: 1, Amount: sent.Amount, Units: sent.Units,
	}
	if before := order.StuckAt(o, m.Seq); before != nil {
		step.Since, step.Attempts = before.Since, before.Attempts+1
	}
	pause := refusedPause << min(step.Attempts-1, refusedDoublings)
	next := tx.Now + hlc.FromMillis(pause.Milliseconds())
	step.Seq, step.NextTry = tx.Emit(m.To, laneOf(o, m), payload, next), next.Millis()
	// The new message is stuck before the old one is not, so that an order on hold for it stays there.
	l.record(tx, f, order.StepStuck(o, step, now))
	l.record(tx, f, order.StepResolved(o, m.Seq, order.DecisionRetry, "", "", now))
}

// laneOf is the key of a refused message's next attempt: a lane of its own, for while it waits the order's other messages to the
// same place must not. It was their turn when it was refused.
func laneOf(o *orderpb.Order, refused *shard.Message) string {
	return o.Id + laneMark + strconv.FormatUint(refused.Seq, 10)
}

// orderOf is the order that a message is about.
func orderOf(m *shard.Message) string {
	orderID, _, _ := strings.Cut(m.Key, laneMark)
	return orderID
}

// again returns the command for an operation that the provider has declined, under the key of its next attempt.
func again(o *orderpb.Order, sent saga.Sent) []byte {
	attempt, _ := strconv.Atoi(sent.Attempt)
	op := saga.Again(sent.Op, strconv.Itoa(attempt+1))
	switch sent.Step {
	case saga.Capture:
		return encode(saga.CaptureOf(o, op, sent.Amount))
	case saga.Void:
		return encode(saga.VoidOf(o, op))
	case saga.Refund:
		return encode(saga.RefundOf(o, op, sent.Amount))
	}
	panic("ordershard: a " + sent.Step.String() + " does not go to the provider again")
}

// Stuck puts on record that a step could not be delivered for long.
func (l *logic) Stuck(tx *shard.Tx, m *shard.Message, s shard.Stuck) {
	l.mark(nil)
	f, ok := l.files.Find(orderOf(m))
	if !ok {
		panic("ordershard: message of an unknown order " + m.Key)
	}
	o, now := &f.order, tx.Now.Millis()
	sent := l.read(o, m)
	l.record(tx, f, order.StepStuck(o, &orderpb.StuckStep{
		Seq: m.Seq, Step: sent.Step.String(), Cause: s.Cause, Since: m.Created.Millis(), Attempts: s.Attempts,
		NextTry: s.NextTry.Millis(), Amount: sent.Amount, Units: sent.Units,
	}, now))
}

// retry sends a stuck step again at once.
func (l *logic) retry(tx *shard.Tx, o *orderpb.Order, c *orderpb.RetryStep, now int64) ([]*orderpb.Event, *reject.Rejection) {
	m, r := l.stuckMessage(o, c.Seq)
	if r != nil {
		return nil, r
	}
	events, r := order.DecideRetry(o, c, now)
	if r == nil {
		tx.Finish(m.Seq)
		l.authorizing(o, m.Seq, tx.Emit(m.To, m.Key, m.Payload, 0))
	}
	return events, r
}

// resolve ends a stuck step by an operator's word.
func (l *logic) resolve(tx *shard.Tx, f *file, c *orderpb.ResolveStep, now int64) ([]*orderpb.Event, *reject.Rejection) {
	o := &f.order
	m, r := l.stuckMessage(o, c.Seq)
	if r != nil {
		return nil, r
	}
	sent := l.read(o, m)
	events, r := order.DecideResolve(o, c, sent.Op, now)
	if r != nil {
		return nil, r
	}
	tx.Finish(m.Seq)
	if c.TellPayment && c.Decision == order.DecisionDone && m.To.Service() == shard.Payment {
		// What follows for the order comes with the payment's answer, as it does from the provider's.
		l.tellPayment(tx, o, m, c)
		return events, nil
	}
	l.record(tx, f, events)
	if sent.Step == saga.Claim && c.Decision == order.DecisionDone {
		delete(l.claiming, o.Id)
	}
	return saga.Resolve(o, sent, c.Decision == order.DecisionDone, c.Evidence, now), nil
}

// tellPayment has the payment record that a step has been done outside of the system. It goes the way of the order's other messages, and not on in the
// lane of its own that a refused step has: a refund that follows must not overtake the capture that it counts on.
func (l *logic) tellPayment(tx *shard.Tx, o *orderpb.Order, m *shard.Message, c *orderpb.ResolveStep) {
	payload, err := saga.ByWord(m.Payload, c.Operator, c.Evidence)
	if err != nil {
		panic("ordershard: own outbox message does not decode: " + err.Error())
	}
	l.authorizing(o, m.Seq, tx.Emit(m.To, o.Id, payload, 0))
}

func (l *logic) stuckMessage(o *orderpb.Order, seq uint64) (*shard.Message, *reject.Rejection) {
	m, ok := l.state.Message(seq)
	if !ok || orderOf(m) != o.Id || order.StuckAt(o, seq) == nil {
		return nil, &reject.Rejection{Code: reject.SagaNotStuck, Field: "/seq", Detail: fmt.Sprintf("order %s has no stuck step %d", o.Id, seq)}
	}
	return m, nil
}

// Due is the deadline of an order that has not been placed and paid. The ID of none has lapsed long enough.
func (l *logic) Due(tx *shard.Tx, orderID string) {
	l.mark(nil)
	if f, ok := l.files.Find(orderID); ok {
		l.record(tx, f, order.DecideExpire(&f.order, tx.Now.Millis()))
	}
}

// waitKey takes a key apart: those who wait wait for an order's first outcome, or under its key with endSuffix for its end.
func waitKey(key string) (orderID string, end bool) { return strings.CutSuffix(key, endSuffix) }

// Settled reports whether what is waited for under a key has come.
func (l *logic) Settled(key string) bool {
	orderID, end := waitKey(key)
	f, ok := l.files.Find(orderID)
	return ok && (end && order.Ended(f.order.State) || !end && f.order.SettledRevision != 0)
}

// View answers those who wait.
func (l *logic) View(key string) shard.Result {
	orderID, end := waitKey(key)
	f, r := l.find(orderID)
	switch {
	case r != nil:
		return rejected(r)
	case end:
		return shard.Result{Payload: encode(&orderpb.Receipt{Id: orderID, Revision: l.endedAt(f)})}
	}
	return l.outcome(f)
}

// endedAt returns the revision at which an order has come to rest; its newest while it has not. What comes after is about steps that are stuck: little.
func (l *logic) endedAt(f *file) uint64 {
	revision := len(f.positions)
	for i := revision; i > 0 && order.Ended(f.order.State); i-- {
		if order.KindOf(l.readEvent(f.positions[i-1])) == order.KindEnded {
			return uint64(i)
		}
	}
	return uint64(revision)
}

// outcome is the answer to those who placed an order: the order as it was when it had its first outcome, however often they ask.
func (l *logic) outcome(f *file) shard.Result {
	o := &f.order
	if settled := o.SettledRevision; settled != 0 && settled < o.Revision {
		o = l.fold(f.positions[:settled])
	}
	r := shard.Result{Payload: encode(o)}
	if refusal := order.Refusal(o); refusal != nil {
		r.Code, r.Field, r.Detail = refusal.Code, refusal.Field, refusal.Detail
	}
	return r
}

// file is an order with the positions of its events in the feed, in order.
type file struct {
	order     orderpb.Order
	positions []uint64
	few       [8]uint64 // where they are at first: few orders have more events
}

func newFile() *file {
	f := new(file)
	f.positions = f.few[:0]
	return f
}

// fileCodec writes count, positions (each as the distance to the one before) and order.
var fileCodec = shard.Codec[*file]{
	Append: func(dst []byte, f *file) []byte {
		dst = binary.AppendUvarint(dst, uint64(len(f.positions)))
		last := uint64(0)
		for _, p := range f.positions {
			dst = binary.AppendUvarint(dst, p-last)
			last = p
		}
		return orderCodec.Append(dst, &f.order)
	},
	Decode: func(data []byte) (*file, error) {
		f := newFile()
		count, n := binary.Uvarint(data)
		if n <= 0 || count > uint64(len(data)) { // each takes a byte at least
			return nil, errors.New("decode order: count of events")
		}
		data = data[n:]
		last := uint64(0)
		for range count {
			distance, n := binary.Uvarint(data)
			if n <= 0 || distance == 0 {
				return nil, errors.New("decode order: positions of events")
			}
			last += distance
			f.positions = append(f.positions, last)
			data = data[n:]
		}
		if err := f.order.UnmarshalVT(data); err != nil {
			return nil, fmt.Errorf("decode order: %w", err)
		}
		return f, nil
	},
	// Counting exactly would visit every field. An order without lines has some 300 bytes.
	Size: func(f *file) int {
		o := &f.order
		return 300 + 3*len(f.positions) + 40*len(o.Lines) + 80*(len(o.Fulfillments)+len(o.Returns)+len(o.Refunds)+len(o.Stuck))
	},
}

var orderCodec = shard.ProtoCodec[orderpb.Order]()

// customerKey sorts a customer's orders newest first.
func customerKey(o *orderpb.Order) string {
	return customerPrefix(o.CustomerId) + newestFirst(o.CreatedAt) + o.Id
}

func customerPrefix(customer string) string { return customer + "\x00" }

func newestFirst(millis int64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], ^uint64(millis))
	return string(b[:])
}

func rejected(r *reject.Rejection) shard.Result {
	return shard.Result{Code: r.Code, Field: r.Field, Detail: r.Detail}
}

func malformed(format string, args ...any) shard.Result {
	return shard.Result{Code: reject.MalformedCommand, Detail: fmt.Sprintf(format, args...)}
}

// encode encodes a message of ours, which can only fail by a bug of the generated code.
func encode(m interface{ MarshalVT() ([]byte, error) }) []byte {
	data, err := m.MarshalVT()
	if err != nil {
		panic("ordershard: encode: " + err.Error())
	}
	return data
}
