package reactor

import (
	"container/heap"
	"fmt"
	"slices"
	"time"

	"hanse/api/paymentpb"
	"hanse/internal/clock"
	"hanse/internal/hlc"
	"hanse/internal/payment"
	"hanse/internal/reject"
	"hanse/internal/saga"
	"hanse/internal/shard"
)

// Config bounds deliveries.
type Config struct {
	// FirstBackoff is the longest pause before the first retry; it doubles up to MaxBackoff. The pause is drawn from
	// zero to that (full jitter), so that what failed together does not come back together. Defaults 100 ms, 30 s.
	FirstBackoff, MaxBackoff time.Duration
	// StuckAfterAttempts and StuckAfter say when a message is reported as stuck, whichever comes first;
	// from then on it is tried every StuckRetry, or sooner when its receiver is there and has not finished. Defaults 12, 15 min, 5 min.
	StuckAfterAttempts int
	StuckAfter         time.Duration
	StuckRetry         time.Duration
	// MaxInFlight bounds the deliveries of one shard under way at once; more wait. Default 8192.
	MaxInFlight int
}

// DefaultConfig returns the documented defaults.
func DefaultConfig() Config {
	return Config{
		FirstBackoff: 100 * time.Millisecond, MaxBackoff: 30 * time.Second,
		StuckAfterAttempts: 12, StuckAfter: 15 * time.Minute, StuckRetry: 5 * time.Minute,
		MaxInFlight: 8192,
	}
}

// Delivery asks the executor to bring Message, from shard From, to Message.To and to report with Answered.
type Delivery struct {
	From    shard.ID
	Term    uint64
	Message *shard.Message
	again   bool // this reactor has tried before
	unsent  bool // the authorization that this void takes back has never left, here or at another leader
}

// Payload returns what is to be sent: the message's own, but for what is known here of the attempts before.
func (d *Delivery) Payload() []byte {
	switch {
	case d.unsent:
		return payment.Unsent(d.Message.Payload)
	case d.again && is(saga.Authorize, d.Message):
		return payment.Again(d.Message.Payload)
	}
	return d.Message.Payload
}

// Proposal asks the executor to propose Command to shard To, which this node leads; Lazy is as replica.Manner has it. When the
// proposal fails, the executor calls ProposalFailed.
type Proposal struct {
	To      shard.ID
	Term    uint64
	Seq     uint64
	Command shard.Command
	Lazy    bool
}

// Lazy reports whether nobody waits for what a command does at shard to: it may share another's entry, as replica.Manner has it.
func Lazy(to shard.ID, c *shard.Command) bool {
	return c.Kind == shard.KindLogic && lazy(to, c.Payload)
}

func lazy(to shard.ID, payload []byte) bool {
	return to.Service() == shard.Inventory && saga.Unawaited(payload)
}

// Actions are what the reactor wants done. The order within each list matters, not between them.
type Actions struct {
	Deliveries []Delivery
	Proposals  []Proposal
}

// Reactor keeps the deliveries of all shards that the node leads. Not for concurrent use.
type Reactor struct {
	cfg    Config
	random func() uint64
	led    map[shard.ID]*outbox
	timers timerQueue
	settle []settling // in the order of their times
	out    Actions
}

// settling is a reserve of an order on record that leaves after all, unless something else of the order does before.
type settling struct {
	at      int64 // on Mono
	outbox  *outbox
	message *shard.Message
}

// settleAfter is how long the inventory may be left to think that an order may not be on record, in ms: others who need the same units wait meanwhile.
const settleAfter = 500

// undecidedPause is the longest pause, in ms, before a reserve is sent again that waits for what is held tentatively.
const undecidedPause = 250

// New returns a reactor that leads nothing. Random draws the jitter.
func New(cfg Config, random func() uint64) *Reactor {
	return &Reactor{cfg: cfg, random: random, led: make(map[shard.ID]*outbox)}
}

// outbox is the delivery state of one led shard.
type outbox struct {
	id       shard.ID
	term     uint64
	pending  map[uint64]*delivery
	lanes    map[laneKey]*lane
	inFlight int
	awaited  map[string]int // those in flight about an object that are not lazy
	waiting  []*delivery    // heads of lanes that wait for room in flight
	gates    map[string]*gate
	paying   map[string]*delivery // authorizations, by order
	heads    []*delivery          // that may leave when all messages that came with them are known
	opening  []*gate              // that the entry being taken note of may open
	early    map[laneKey]*early
	ages     []*early    // the same, oldest first
	held     []*delivery // reserves that have their answer already
	peers    map[shard.ID]*peer
	// unsettled has the reserves that were answered by tentative ones, while nothing has told the inventory yet that their orders are on record.
	unsettled map[laneKey]*shard.Message
	asking    int // deliveries that wait to ask again, for their receivers have not finished
}

// peer is what is known of a destination.
type peer struct {
	heard  int64       // on Mono, when it answered last
	failed []*delivery // what has failed since, and waits to be tried again
}

// silence is how long a destination has to have been silent, in ms, to count as away, and how soon it gets what has failed when it is back.
const silence = 1000

// askingPace is how often receivers that have not finished are asked again for one shard, in ms, by those that are stuck. Few ask often, and hear soon that the
// provider is back after an outage; of many each asks as seldom as what has failed, so that they do not keep the log busy.
const askingPace = 10

// early is a tentative reserve that left before its order was on record.
type early struct {
	lane  laneKey
	until int64 // on Mono; then it is forgotten
	held  bool
	waits *delivery // the reserve of the order on record, for which this one is as good; nil as long as there is none
}

// earlyTime is how long a tentative reserve is remembered, in ms. An order whose place takes longer is reserved for as if there had been none.
const earlyTime = 10_000

// gate keeps the authorization of an order until the inventory has said of all its reserves that the stock is held, and its key is known to be its own.
type gate struct {
	outbox *outbox
	key    string
	closed int       // steps that have not been answered so
	before *delivery // the authorization that waits, nil for none
}

type laneKey struct {
	to  shard.ID
	key string
}

// lane holds the messages to one destination about one object; only the first is under way.
type lane struct {
	queue []*delivery
	one   [1]*delivery // where the queue is at first: most lanes never have a second
	// unsent says that an authorization was taken out that had never left.
	unsent bool
}

type delivery struct {
	outbox   *outbox
	lane     *lane
	message  *shard.Message
	lazy     bool
	left     bool  // or may have: it was sent, or others led the shard before
	known    bool  // the shard has been told of its outcome
	gate     *gate // that it keeps closed, nil for none
	state    deliveryState
	attempts int
	reported bool
	asks     bool // waits to ask a receiver again that has not finished
	missed   bool // is among what has failed at its peer
	// undecided says that a reserve waits for what is held tentatively.
	undecided bool
	due       int64  // on Mono, of the retry it waits for
	reply     []byte // the answer, as it is proposed
}

type deliveryState uint8

const (
	queued    deliveryState = iota // behind others of its lane
	gated                          // waits for the stock to be held
	delayed                        // waits for NotBefore or for a retry
	ready                          // waits for room in flight
	sent                           // with the executor
	answered                       // its reply is being proposed
	abandoned                      // finished, or the shard is no longer led
)

// Lead starts delivering a shard's outbox: the messages that were not finished when this replica
// had applied all entries of earlier terms. Leading again under a new term starts over.
func (r *Reactor) Lead(id shard.ID, term uint64, messages []*shard.Message, now clock.Reading) {
	r.Resign(id)
	o := &outbox{
		id: id, term: term, pending: make(map[uint64]*delivery), lanes: make(map[laneKey]*lane), awaited: make(map[string]int),
		gates: make(map[string]*gate), paying: make(map[string]*delivery), early: make(map[laneKey]*early),
		peers: make(map[shard.ID]*peer), unsettled: make(map[laneKey]*shard.Message),
	}
	r.led[id] = o
	r.addAll(o, messages, true, now)
	r.answerHeld(o, now)
}

// Resign stops delivering a shard's outbox. What is under way may still arrive.
func (r *Reactor) Resign(id shard.ID) {
	if o, ok := r.led[id]; ok {
		for _, d := range o.pending {
			d.state = abandoned
		}
		delete(r.led, id)
	}
}

// Leads reports whether the shard's outbox is delivered here.
func (r *Reactor) Leads(id shard.ID) bool { return r.led[id] != nil }

// Applied takes note of an applied entry: new messages, and finished ones.
func (r *Reactor) Applied(id shard.ID, emitted []*shard.Message, finished []uint64, now clock.Reading) {
	o := r.led[id]
	if o == nil {
		return
	}
	r.addAll(o, emitted, false, now)
	for _, seq := range finished {
		r.finish(o, seq, now)
	}
	r.answerHeld(o, now) // now that all messages of the entry are known, and so what else its orders wait for
	// Only now, for an entry that ends a reserve because the stock was refused ends the authorization too.
	for _, g := range o.opening {
		r.open(g, now)
	}
	clear(o.opening)
	o.opening = o.opening[:0]
}

// addAll takes messages into an outbox. They are inherited when another leader may have sent them. None leaves before all are known, for an authorization
// waits for others of its order, whatever their numbers: a reserve that an operator had sent again comes after it.
func (r *Reactor) addAll(o *outbox, messages []*shard.Message, inherited bool, now clock.Reading) {
	for _, m := range messages {
		if d := r.add(o, m, inherited, now); d != nil {
			o.heads = append(o.heads, d)
		}
	}
	for _, d := range o.heads {
		r.head(d, now)
	}
	clear(o.heads)
	o.heads = o.heads[:0]
}

// add takes a message into an outbox, and returns its delivery when it is the first of its lane.
func (r *Reactor) add(o *outbox, m *shard.Message, inherited bool, now clock.Reading) *delivery {
	if _, known := o.pending[m.Seq]; known {
		return nil // emitted between the moment the outbox was listed and now
	}
	k := laneKey{m.To, m.Key}
	delete(o.unsettled, k)
	l, lazy := o.lanes[k], lazy(m.To, m.Payload)
	if l != nil {
		d := &delivery{outbox: o, lane: l, message: m, lazy: lazy, left: inherited}
		o.pending[m.Seq] = d
		o.note(d)
		l.queue = append(l.queue, d)
		if head := l.queue[0]; head.undecided && head.state == delayed {
			r.giveUp(head, now)
		}
		return nil
	}
	var both struct { // one allocation
		delivery
		is lane
	}
	d, l := &both.delivery, &both.is
	d.outbox, d.lane, d.message, d.lazy, d.left = o, l, m, lazy, inherited
	l.queue = append(l.one[:0], d)
	o.pending[m.Seq], o.lanes[k] = d, l
	o.note(d)
	return d
}

// note notes what a message means to others of its order: a reserve or a claim closes the gate, and stock is allocated when the order has been told that it is paid.
func (o *outbox) note(d *delivery) {
	switch stepOf(d.message) {
	case saga.Reserve, saga.Claim:
		o.close(d)
	case saga.Authorize:
		o.paying[d.message.Key] = d
	case saga.Allocate:
		if paid := o.paying[d.message.Key]; paid != nil {
			paid.known = true
		}
	}
}

// close has a step close the gate of its order.
func (o *outbox) close(d *delivery) {
	g := o.gates[d.message.Key]
	if g == nil {
		g = &gate{outbox: o, key: d.message.Key}
		o.gates[g.key] = g
	}
	d.gate = g
	g.closed++
}

// pass takes a step from the gate of its order, and returns the gate; nil when it is at none any more.
func (d *delivery) pass() *gate {
	g := d.gate
	if g != nil {
		d.gate = nil
		g.closed--
	}
	return g
}

// open lets the authorization leave when no step is before it.
func (r *Reactor) open(g *gate, now clock.Reading) {
	if g == nil || g.closed > 0 || g.outbox.gates[g.key] != g {
		return
	}
	delete(g.outbox.gates, g.key)
	if a := g.before; a != nil && a.state == gated {
		r.head(a, now)
	}
}

// is reports whether a message of the saga is of a step.
func is(step saga.Step, m *shard.Message) bool { return stepOf(m) == step }

// stepOf tells the step of a message of the saga, as far as saga.StepOf does.
func stepOf(m *shard.Message) saga.Step {
	var to saga.Service
	switch m.To.Service() {
	case shard.Inventory:
		to = saga.Inventory
	case shard.Payment:
		to = saga.Payment
	case shard.Order:
		to = saga.Keys
	default:
		return saga.None
	}
	s, _ := saga.StepOf(to, m.Payload)
	return s
}

// head starts a delivery that is the first of its lane.
func (r *Reactor) head(d *delivery, now clock.Reading) {
	if g := d.outbox.gates[d.message.Key]; g != nil && is(saga.Authorize, d.message) {
		d.state, g.before = gated, d
		return
	}
	at := d.message.NotBefore.Millis()
	// Both times are of the shard's clock, which may be ahead of this node's: wait no longer than was meant.
	if pause := min(at-now.Wall, at-d.message.Created.Millis()); pause > 0 {
		r.delay(d, now.Mono+pause)
		return
	}
	r.send(d)
}

// Ahead is a command that may leave for another shard before the order that it is for is on record.
type Ahead struct {
	To      shard.ID
	Payload []byte
}

// Tentative returns what may leave while the order that payload places is being logged, with the order's ID; see [saga.Tentative].
func Tentative(payload []byte, layout shard.Layout, now, time int64) (orderID string, ahead []Ahead) {
	orderID, sends := saga.Tentative(payload, layout.InventoryOf, now, time)
	for i := range sends {
		s := &sends[i]
		if s.Step == saga.Claim {
			ahead = append(ahead, Ahead{layout.KeyHome(s.Key.Key), saga.ClaimCommand(s.Key)})
		} else {
			ahead = append(ahead, Ahead{shard.NewID(shard.Inventory, int(s.Leg)), saga.Encode(s.Inventory)})
		}
	}
	return orderID, ahead
}

// Early takes note that a tentative reserve for an order that is being placed at shard from leaves for shard to, or the claim of its key. When the order is on
// record its own reserve waits for the answer to this one, which is as good: once the order is there, its stock stays. It ends with [Reactor.EarlyAnswered].
func (r *Reactor) Early(from, to shard.ID, orderID string, now clock.Reading) {
	o := r.led[from]
	if o == nil {
		return
	}
	old := 0
	for old < len(o.ages) && o.ages[old].until <= now.Mono {
		if e := o.ages[old]; o.early[e.lane] == e && e.waits == nil {
			delete(o.early, e.lane)
		}
		old++
	}
	o.ages = slices.Delete(o.ages, 0, old)
	if lane := (laneKey{to, orderID}); o.early[lane] == nil { // else the answer to either will do
		e := &early{lane: lane, until: now.Mono + earlyTime}
		o.early[lane], o.ages = e, append(o.ages, e)
	}
}

// EarlyAnswered reports whether the stock of a tentative reserve is held, or the key is claimed. What is not, for whatever reason, is asked for when the order
// is on record.
func (r *Reactor) EarlyAnswered(from, to shard.ID, orderID string, held bool, now clock.Reading) {
	o, lane := r.led[from], laneKey{to, orderID}
	if o == nil || o.early[lane] == nil {
		return
	}
	e := o.early[lane]
	d := e.waits
	switch {
	case d == nil && held:
		e.held = true
		return
	case d == nil || d.state != sent:
	case held:
		r.heldEarly(d, now)
	default:
		r.leave(d)
	}
	delete(o.early, lane)
}

// heldEarly takes the answer to a tentative reserve for that to the order's own. Somebody has to tell the inventory that the order is on record, though:
// others wait for what is held tentatively. Mostly that is its allocation, soon.
func (r *Reactor) heldEarly(d *delivery, now clock.Reading) {
	o := d.outbox
	r.answered(d, shard.Result{}, now)
	if is(saga.Claim, d.message) {
		return
	}
	o.unsettled[laneKey{d.message.To, d.message.Key}] = d.message
	r.settle = append(r.settle, settling{now.Mono + settleAfter, o, d.message})
}

// settleDue has the reserves leave of which the inventory has not heard otherwise. Nobody waits for their answers.
func (r *Reactor) settleDue(now int64) {
	due := 0
	for due < len(r.settle) && r.settle[due].at <= now {
		s := r.settle[due]
		r.settle[due] = settling{}
		due++
		k := laneKey{s.message.To, s.message.Key}
		if o := s.outbox; r.led[o.id] == o && o.unsettled[k] == s.message {
			delete(o.unsettled, k)
			r.out.Deliveries = append(r.out.Deliveries, Delivery{From: o.id, Term: o.term, Message: s.message})
		}
	}
	r.settle = r.settle[due:]
}

// wait has the reserve of an order on record wait for the answer to a tentative one, and reports whether there is one.
func (o *outbox) wait(d *delivery) bool {
	lane := laneKey{d.message.To, d.message.Key}
	e := o.early[lane]
	if e == nil || e.waits != nil || !is(saga.Reserve, d.message) && !is(saga.Claim, d.message) {
		return false
	}
	e.waits = d
	if e.held {
		delete(o.early, lane)
		o.held = append(o.held, d)
	}
	return true
}

// answerHeld answers the reserves whose stock is held already.
func (r *Reactor) answerHeld(o *outbox, now clock.Reading) {
	held := o.held
	o.held = nil
	for _, d := range held {
		if d.state == sent {
			r.heldEarly(d, now)
		}
	}
}

// send has a message leave, or wait for a tentative reserve; whoever calls it calls answerHeld, when all is known that may be sent with it.
func (r *Reactor) send(d *delivery) {
	o := d.outbox
	if o.inFlight >= r.cfg.MaxInFlight {
		d.state = ready
		o.waiting = append(o.waiting, d)
		return
	}
	o.depart(d)
	o.ask(d, false)
	d.state, d.left = sent, true
	if !o.wait(d) {
		r.leave(d)
	}
}

// leave has the executor bring a message to where it is for.
func (r *Reactor) leave(d *delivery) {
	o := d.outbox
	r.out.Deliveries = append(r.out.Deliveries, Delivery{
		From: o.id, Term: o.term, Message: d.message, again: d.attempts > 0, unsent: d.lane.unsent && is(saga.Void, d.message),
	})
}

// depart and arrive keep count of what is in flight.
func (o *outbox) depart(d *delivery) {
	o.inFlight++
	if !d.lazy {
		o.awaited[d.message.Key]++
	}
}

func (o *outbox) arrive(d *delivery) {
	o.inFlight--
	if d.lazy {
		return
	}
	if n := o.awaited[d.message.Key] - 1; n > 0 {
		o.awaited[d.message.Key] = n
	} else {
		delete(o.awaited, d.message.Key)
	}
}

func (r *Reactor) delay(d *delivery, until int64) {
	d.state, d.due = delayed, until
	heap.Push(&r.timers, timer{until, d})
}

func (r *Reactor) finish(o *outbox, seq uint64, now clock.Reading) {
	d := o.pending[seq]
	if d == nil {
		return
	}
	delete(o.pending, seq)
	if o.paying[d.message.Key] == d {
		delete(o.paying, d.message.Key)
	}
	if d.state == sent {
		o.arrive(d)
	}
	o.ask(d, false)
	d.state = abandoned
	l := d.lane
	if !d.left && is(saga.Authorize, d.message) {
		l.unsent = true
	}
	wasHead := l.queue[0] == d
	l.queue = slices.DeleteFunc(l.queue, func(other *delivery) bool { return other == d })
	switch {
	case len(l.queue) == 0:
		delete(o.lanes, laneKey{d.message.To, d.message.Key})
	case wasHead:
		r.head(l.queue[0], now)
	}
	if g := d.pass(); g != nil {
		o.opening = append(o.opening, g)
	}
	r.refill(o, now)
}

// refill sends what waited for room in flight.
func (r *Reactor) refill(o *outbox, now clock.Reading) {
	for len(o.waiting) > 0 && o.inFlight < r.cfg.MaxInFlight {
		d := o.waiting[0]
		o.waiting = o.waiting[1:]
		if d.state == ready {
			r.send(d)
		}
	}
	r.answerHeld(o, now)
}

// Answered reports the end of a delivery: a final result, or a failure (err, or a result that is still Pending).
func (r *Reactor) Answered(from shard.ID, term, seq uint64, result shard.Result, err error, now clock.Reading) {
	o := r.led[from]
	if o == nil || o.term != term {
		return
	}
	d := o.pending[seq]
	switch {
	case d == nil || d.state != sent:
	case err != nil:
		o.arrive(d)
		r.retry(d, err.Error(), r.cfg.StuckRetry, now)
		o.missed(d, now)
		r.refill(o, now)
	case result.Pending != "" && d.message.To.Service() == shard.Inventory:
		o.arrive(d)
		r.heard(o, d.message.To, now)
		if d.undecided = true; len(d.lane.queue) > 1 {
			r.giveUp(d, now)
		} else {
			r.delay(d, now.Mono+int64(r.random()%undecidedPause)+1)
		}
		r.refill(o, now)
	case result.Pending != "":
		o.arrive(d)
		o.ask(d, true)
		r.retry(d, unfinished(d.message), r.askAgain(o), now)
		r.heard(o, d.message.To, now)
		r.refill(o, now)
	default:
		r.heard(o, d.message.To, now)
		r.answered(d, result, now)
	}
}

// ask notes whether a delivery waits to ask again.
func (o *outbox) ask(d *delivery, asks bool) {
	switch {
	case asks && !d.asks:
		o.asking++
	case !asks && d.asks:
		o.asking--
	}
	d.asks = asks
}

// askAgain returns the pause of a stuck delivery whose receiver has not finished.
func (r *Reactor) askAgain(o *outbox) time.Duration {
	return min(r.cfg.StuckRetry, max(r.cfg.MaxBackoff, time.Duration(o.asking*askingPace)*time.Millisecond))
}

// unfinished says what a message waits for whose receiver has not finished.
func unfinished(m *shard.Message) string {
	var c paymentpb.Command
	if m.To.Service() != shard.Payment || c.UnmarshalVT(m.Payload) != nil {
		return "the receiver has not finished"
	}
	paymentID, op := payment.OperationOf(&c)
	return fmt.Sprintf("%s has not finished %s: hanse payment get %s says why", paymentID, op, paymentID)
}

// peer returns what is known of a destination.
func (o *outbox) peer(to shard.ID) *peer {
	p := o.peers[to]
	if p == nil {
		p = new(peer)
		o.peers[to] = p
	}
	return p
}

// missed takes note of a delivery that has failed and waits, if its destination is away.
func (o *outbox) missed(d *delivery, now clock.Reading) {
	if p := o.peer(d.message.To); now.Mono-p.heard >= silence && !d.missed {
		d.missed = true
		p.failed = append(p.failed, d)
	}
}

// heard takes note that a destination answers. What has failed while it was away does not wait as long as it would if it were still.
func (r *Reactor) heard(o *outbox, to shard.ID, now clock.Reading) {
	p := o.peer(to)
	p.heard = now.Mono
	for _, d := range p.failed {
		d.missed = false
		if soon := now.Mono + int64(r.random()%silence) + 1; d.state == delayed && soon < d.due {
			r.delay(d, soon)
		}
	}
	p.failed = nil
}

// giveUp answers a reserve that waits for what is held tentatively, when its order does not want it any more: what is behind it in the lane releases it,
// and must not wait for others' orders.
func (r *Reactor) giveUp(d *delivery, now clock.Reading) {
	r.conclude(d, shard.Result{Code: reject.HoldCanceled, Detail: "the order was given up while it waited for stock that others held tentatively"}, now)
}

// answered takes a final result of what is in flight.
func (r *Reactor) answered(d *delivery, result shard.Result, now clock.Reading) {
	d.outbox.arrive(d)
	r.conclude(d, result, now)
}

// conclude has the outcome of a delivery applied.
func (r *Reactor) conclude(d *delivery, result shard.Result, now clock.Reading) {
	d.state, d.reply = answered, shard.EncodeReply(d.message.Seq, &result)
	if result.OK() {
		r.open(d.pass(), now) // first: the answer need not hurry when it is not what the order waits for
	}
	r.propose(d)
	r.refill(d.outbox, now)
}

// propose has an answer applied. While another about the same object is awaited, which has to be there too for anything to go on, they
// share an entry; and so does one that says what the shard knows already, unless others wait behind it.
func (r *Reactor) propose(d *delivery) {
	known := d.known && len(d.lane.queue) == 1
	r.out.Proposals = append(r.out.Proposals, Proposal{
		To: d.outbox.id, Term: d.outbox.term, Seq: d.message.Seq,
		Command: shard.Command{Kind: shard.KindReply, Payload: d.reply},
		Lazy:    d.lazy || known || d.outbox.awaited[d.message.Key] > 0,
	})
}

// ProposalFailed reports that a reply was not applied, as far as is known. It is proposed again after a pause.
func (r *Reactor) ProposalFailed(to shard.ID, term, seq uint64, now clock.Reading) {
	o := r.led[to]
	if o == nil || o.term != term {
		return
	}
	if d := o.pending[seq]; d != nil && d.state == answered {
		heap.Push(&r.timers, timer{now.Mono + r.cfg.FirstBackoff.Milliseconds(), d})
	}
}

// retry has a delivery wait before it is tried again: once it is stuck, for whenStuck.
func (r *Reactor) retry(d *delivery, cause string, whenStuck time.Duration, now clock.Reading) {
	d.attempts++
	pause := r.cfg.FirstBackoff << min(d.attempts-1, 20)
	if pause > r.cfg.MaxBackoff || pause <= 0 {
		pause = r.cfg.MaxBackoff
	}
	wait := int64(r.random()%uint64(pause.Milliseconds()+1)) + 1
	// What the inventory sends are questions: no person can help, and stock waits for the answer.
	stuck := d.outbox.id.Service() != shard.Inventory && (d.attempts >= r.cfg.StuckAfterAttempts || now.Wall-d.message.Created.Millis() >= r.cfg.StuckAfter.Milliseconds())
	if stuck {
		wait = whenStuck.Milliseconds()
		if !d.reported {
			d.reported = true
			r.out.Proposals = append(r.out.Proposals, Proposal{
				To: d.outbox.id, Term: d.outbox.term,
				Command: shard.Command{Kind: shard.KindStuck, Payload: shard.EncodeStuck(&shard.Stuck{
					Seq: d.message.Seq, Attempts: uint64(d.attempts), NextTry: hlc.FromMillis(now.Wall + wait), Cause: cause,
				})},
			})
		}
	}
	r.delay(d, now.Mono+wait)
}

// Tick sends what has become due at now.
func (r *Reactor) Tick(now clock.Reading) {
	r.settleDue(now.Mono)
	for len(r.timers) > 0 && r.timers[0].at <= now.Mono {
		t := heap.Pop(&r.timers).(timer)
		switch {
		case t.delivery.state == delayed && t.delivery.due == t.at:
			r.send(t.delivery)
			r.answerHeld(t.delivery.outbox, now)
		case t.delivery.state == answered:
			r.propose(t.delivery)
		}
	}
}

// NextDue returns when Tick has something to do, on its Mono; 0 when it has not.
func (r *Reactor) NextDue() int64 {
	next := int64(0)
	if len(r.timers) > 0 {
		next = r.timers[0].at
	}
	if len(r.settle) > 0 && (next == 0 || r.settle[0].at < next) {
		next = r.settle[0].at
	}
	return next
}

// Take returns the actions since the last Take.
func (r *Reactor) Take() Actions {
	out := r.out
	r.out = Actions{}
	return out
}

// Pending returns how many messages of a led shard are not finished.
func (r *Reactor) Pending(id shard.ID) int {
	if o := r.led[id]; o != nil {
		return len(o.pending)
	}
	return 0
}

type timer struct {
	at       int64
	delivery *delivery
}

// timerQueue is a heap by time, then message number, so that a run can be repeated exactly.
type timerQueue []timer

func (q timerQueue) Len() int { return len(q) }
func (q timerQueue) Less(i, j int) bool {
	a, b := q[i], q[j]
	if a.at != b.at {
		return a.at < b.at
	}
	if a.delivery.outbox.id != b.delivery.outbox.id {
		return a.delivery.outbox.id < b.delivery.outbox.id
	}
	return a.delivery.message.Seq < b.delivery.message.Seq
}
func (q timerQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *timerQueue) Push(x any)   { *q = append(*q, x.(timer)) }
func (q *timerQueue) Pop() any {
	old := *q
	t := old[len(old)-1]
	*q = old[:len(old)-1]
	return t
}
