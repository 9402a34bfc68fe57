package shard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"hanse/internal/hlc"
	"hanse/internal/store"
)

const (
	// IdempotencyTTL is how long the answer under an idempotency key is kept.
	IdempotencyTTL = 7 * 24 * time.Hour
	// maxDuePerTick bounds the work of one KindTick; the rest is due at the next.
	maxDuePerTick = 1000
	// keepAnswers is how many unchanged idempotency records stay in memory: those of requests that may be repeated right away.
	keepAnswers = 1 << 12
	// Expired idempotency records are dropped sweepRows at a time. They are already ignored before.
	sweepRows     = 4096
	sweepInterval = time.Hour
	sweepPause    = 10 * time.Second
	sweepKey      = "\x00sweep" // the runtime's own timer
	// maxKnownKeys bounds the idempotency keys that are told from new ones without a read: 32 MB.
	maxKnownKeys = 4 << 20
)

// The tags of the runtime's own keys. Logics use lower-case letters, the runtime upper-case ones.
const (
	tagHeader      = 'H'
	tagIdempotency = 'I'
	tagOutbox      = 'O'
	tagFeed        = 'F'
	tagTimer       = 'T'
)

// Codes of the runtime. Every code that users see is in docs/errors.md.
const (
	CodeKeyReused = "idempotency_key_reused"
	CodeMalformed = "malformed_command"
	// CodeAgain says that a command came too late or too early and has to be made anew. It is no answer: its key does not remember it, and users never see it.
	CodeAgain = "again"
)

// Logic is what a service adds to the runtime: the commands it understands.
type Logic interface {
	// Apply decides one command. On a rejection it has changed nothing.
	Apply(tx *Tx, payload []byte) Result
	// Reply takes the answer to the outbox message m, which is finished with it.
	Reply(tx *Tx, m *Message, r Result)
	// Stuck learns that m could not be delivered for long. Delivery goes on, slowly.
	Stuck(tx *Tx, m *Message, s Stuck)
	// Due is called when the timer of key has come.
	Due(tx *Tx, key string)
	// Query answers a read-only question.
	Query(payload []byte) Result
	// Settled reports whether the outcome that callers wait for under key has come; View returns the answer for them.
	Settled(key string) bool
	View(key string) Result
}

// State is the storage of one machine: its tables, feed and timers, behind one Flush.
type State struct {
	reader store.Reader
	prefix []byte
	tables []interface {
		dirtyBytes() int
		flush(store.Batch)
		digest(sum func(key, value []byte))
	}
	// Feed is the shard's event store.
	Feed *Feed
	// Now is the time of the last applied entry.
	Now    hlc.Time
	outbox *outbox
}

// Outbox lists the messages that are not finished, by number. Slice and messages must not be changed.
func (s *State) Outbox() []*Message { return s.outbox.list() }

// Message returns the unfinished message of a number. It must not be changed.
func (s *State) Message(seq uint64) (*Message, bool) { return s.outbox.find(seq) }

// Tx is the view a Logic has of the entry being applied. It ends with the call it was passed to.
type Tx struct {
	// Now is the entry's time: the only clock there is.
	Now hlc.Time
	// Index is the entry's Raft index.
	Index uint64
	m     *machine
}

// Emit adds a message to the outbox, to be delivered after the entry is applied and not before
// notBefore, and returns its number. It is delivered at least once until a reply comes.
func (tx *Tx) Emit(to ID, key string, payload []byte, notBefore hlc.Time) uint64 {
	return tx.m.emit(tx, to, key, payload, notBefore)
}

// Finish drops a message: it need not be delivered any more, though it may have been.
func (tx *Tx) Finish(seq uint64) { tx.m.finish(seq) }

// Publish appends an event to the feed and returns its position. The feed keeps the slice.
func (tx *Tx) Publish(event []byte) uint64 { return tx.m.state.Feed.append(event) }

// Settle says that key has reached the outcome that callers wait for.
func (tx *Tx) Settle(key string) { tx.m.applied.Settled = append(tx.m.applied.Settled, key) }

// Note tells who watches the shard of an object that is stuck, or is not any more.
func (tx *Tx) Note(n StuckNote) { tx.m.applied.Stuck = append(tx.m.applied.Stuck, n) }

// Wake sets key's timer, replacing the one it had. Keys must not begin with a zero byte.
func (tx *Tx) Wake(at hlc.Time, key string) { tx.m.timers.set(at, key) }

// Claim binds the idempotency key of a caller to a request that is carried out at another shard, and refuses when it is another request's. The same
// request may claim it again, and has it for [IdempotencyTTL] from then on.
func (tx *Tx) Claim(caller, key string, requestHash uint64) Result {
	c := Command{Caller: caller, Key: key}
	scope := c.Scope()
	switch rec := tx.m.recorded(tx, scope); {
	case rec == nil || rec.claim && rec.requestHash == requestHash:
		tx.m.remember(tx, scope, &idempotencyRecord{requestHash: requestHash, claim: true})
	case rec.requestHash != requestHash:
		return reused()
	}
	return Result{}
}

// Waits reports whether key has a timer.
func (tx *Tx) Waits(key string) bool { return tx.m.timers.live[key] != nil }

// Unwake clears key's timer, if it has one.
func (tx *Tx) Unwake(key string) { tx.m.timers.clear(key) }

// machine implements Machine around a Logic.
type machine struct {
	logic       Logic
	state       *State
	idempotency *Table[*idempotencyRecord]
	timers      *timers
	nextSeq     uint64
	sweepFrom   string
	applied     Applied
	headerDirty bool
}

// Open creates a machine from what r holds under prefix, empty at first. Build makes the logic and its
// tables on the given state.
func Open(r store.Reader, prefix []byte, build func(*State) Logic) (Machine, error) {
	s := &State{reader: r, prefix: bytes.Clone(prefix)}
	s.Feed = newFeed(s, tagFeed)
	s.outbox = &outbox{prefix: append(bytes.Clone(prefix), tagOutbox), messages: make(map[uint64]*outboxRow)}
	m := &machine{
		state: s, nextSeq: 1,
		timers: &timers{prefix: append(bytes.Clone(prefix), tagTimer), live: make(map[string]*timer)},
	}
	m.idempotency = NewTable(s, tagIdempotency, idempotencyCodec, keepAnswers)
	m.idempotency.known = newKeySet(maxKnownKeys)
	m.logic = build(s)
	header, err := r.Get(append(bytes.Clone(prefix), tagHeader))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return m, nil
	case err != nil:
		return nil, fmt.Errorf("read shard header: %w", err)
	}
	d := decoder{rest: header}
	s.Now, s.Feed.last, m.nextSeq, m.sweepFrom = hlc.Time(d.uvarint()), d.uvarint(), d.uvarint(), string(d.bytes())
	if d.err != nil {
		return nil, fmt.Errorf("read shard header: %w", d.err)
	}
	if err := s.outbox.load(r); err != nil {
		return nil, fmt.Errorf("read outbox: %w", err)
	}
	if err := m.timers.load(r); err != nil {
		return nil, fmt.Errorf("read timers: %w", err)
	}
	return m, nil
}

func (m *machine) Apply(e Entry) Applied {
	m.state.Now = max(m.state.Now, e.Time)
	m.headerDirty = true
	tx := &Tx{Now: m.state.Now, Index: e.Index, m: m}
	m.applied = Applied{Results: make([]Result, len(e.Commands))}
	for i := range e.Commands {
		r := m.command(tx, &e.Commands[i])
		r.Position = e.Index
		m.applied.Results[i] = r
	}
	m.applied.Published = m.state.Feed.seal()
	return m.applied
}

func (m *machine) command(tx *Tx, c *Command) Result {
	switch c.Kind {
	case KindLogic:
		return m.once(tx, c)
	case KindReply:
		seq, r, err := DecodeReply(c.Payload)
		if err != nil {
			return malformed(err)
		}
		if msg, ok := m.state.outbox.find(seq); ok { // else a duplicate of a reply already taken
			m.finish(seq)
			m.logic.Reply(tx, msg, r)
		}
	case KindStuck:
		s, err := DecodeStuck(c.Payload)
		if err != nil {
			return malformed(err)
		}
		if msg, ok := m.state.outbox.find(s.Seq); ok {
			m.logic.Stuck(tx, msg, s)
		}
	case KindTick:
		for range maxDuePerTick {
			key, ok := m.timers.pop(tx.Now)
			if !ok {
				break
			}
			if key == sweepKey {
				m.sweep(tx)
			} else {
				m.logic.Due(tx, key)
			}
		}
	default:
		return malformed(fmt.Errorf("unknown kind %d", c.Kind))
	}
	return Result{}
}

// once applies a command of the logic, or repeats the answer it had under the same idempotency key. Key
// and effect are recorded by the same entry: a key cache beside the state would be the bug.
func (m *machine) once(tx *Tx, c *Command) Result {
	if c.Key == "" {
		return m.logic.Apply(tx, c.Payload)
	}
	scope := c.Scope()
	switch rec := m.recorded(tx, scope); {
	case rec != nil && rec.requestHash != c.RequestHash:
		return reused()
	case rec != nil && !rec.claim:
		r := rec.result
		r.Replayed = true
		if r.Pending != "" {
			if m.logic.Settled(r.Pending) {
				tx.Settle(r.Pending)
			}
		}
		return r
	}
	r := m.logic.Apply(tx, c.Payload)
	if r.Code != CodeAgain {
		m.remember(tx, scope, &idempotencyRecord{requestHash: c.RequestHash, result: r})
	}
	return r
}

// recorded returns what is on record in a scope (see [Command.Scope]), nil for nothing.
func (m *machine) recorded(tx *Tx, scope string) *idempotencyRecord {
	if rec, ok := m.idempotency.Find(scope); ok && rec.expires > tx.Now {
		return rec
	}
	return nil
}

// remember puts a request on record, from now on.
func (m *machine) remember(tx *Tx, scope string, rec *idempotencyRecord) {
	rec.expires = tx.Now + hlc.FromMillis(IdempotencyTTL.Milliseconds())
	m.idempotency.Put(scope, rec)
	if _, ok := m.timers.live[sweepKey]; !ok {
		m.timers.set(tx.Now+hlc.FromMillis(sweepInterval.Milliseconds()), sweepKey)
	}
}

// sweep drops expired idempotency records, some at a time.
func (m *machine) sweep(tx *Tx) {
	var expired []string
	rows, next := 0, ""
	m.idempotency.Scan("", m.sweepFrom, func(key string, rec *idempotencyRecord) bool {
		if rows++; rows > sweepRows {
			next = key
			return false
		}
		if rec.expires <= tx.Now {
			expired = append(expired, key)
		}
		return true
	})
	for _, key := range expired {
		m.idempotency.Delete(key)
	}
	pause := sweepInterval
	if m.sweepFrom = next; next != "" {
		pause = sweepPause
	}
	m.timers.set(tx.Now+hlc.FromMillis(pause.Milliseconds()), sweepKey)
}

func (m *machine) emit(tx *Tx, to ID, key string, payload []byte, notBefore hlc.Time) uint64 {
	msg := m.state.outbox.add(Message{Seq: m.nextSeq, To: to, Key: key, Payload: payload, Created: tx.Now, NotBefore: notBefore})
	m.nextSeq++
	m.applied.Emitted = append(m.applied.Emitted, msg)
	return msg.Seq
}

func (m *machine) finish(seq uint64) {
	if m.state.outbox.remove(seq) {
		m.applied.Finished = append(m.applied.Finished, seq)
	}
}

func (m *machine) Query(payload []byte) Result { return m.logic.Query(payload) }

func (m *machine) View(key string) Result { return m.logic.View(key) }

func (m *machine) Outbox() []*Message { return m.state.outbox.list() }

func (m *machine) NextDue() hlc.Time { return m.timers.next() }

func (m *machine) DirtyBytes() int {
	n := m.state.Feed.unwrittenBytes + m.state.outbox.dirtyBytes + 64*len(m.timers.dirty)
	for _, t := range m.state.tables {
		n += t.dirtyBytes()
	}
	return n
}

func (m *machine) Flush(b store.Batch) {
	if !m.headerDirty {
		return
	}
	m.headerDirty = false
	b.Set(m.headerKey(), m.header())
	for _, t := range m.state.tables {
		t.flush(b)
	}
	m.state.Feed.flush(b)
	m.state.outbox.flush(b)
	m.timers.flush(b)
}

func (m *machine) headerKey() []byte { return append(bytes.Clone(m.state.prefix), tagHeader) }

func (m *machine) header() []byte {
	h := binary.AppendUvarint(nil, uint64(m.state.Now))
	h = binary.AppendUvarint(h, m.state.Feed.last)
	h = binary.AppendUvarint(h, m.nextSeq)
	return appendString(h, m.sweepFrom)
}

// Hash adds up a hash of every row, so that the order in which they are visited does not matter.
func (m *machine) Hash() uint64 {
	var total uint64
	h := fnv.New64a()
	sum := func(key, value []byte) {
		h.Reset()
		h.Write(key)
		h.Write([]byte{0})
		h.Write(value)
		total += h.Sum64()
	}
	sum(m.headerKey(), m.header())
	for _, t := range m.state.tables {
		t.digest(sum)
	}
	m.state.Feed.Read(0, func(position uint64, event []byte) bool {
		sum(m.state.Feed.key(position), event)
		return true
	})
	for _, msg := range m.state.outbox.list() {
		sum(m.state.outbox.key(msg.Seq), appendMessage(nil, msg))
	}
	m.timers.digest(sum)
	return total
}

func reused() Result {
	return Result{Code: CodeKeyReused, Detail: "the idempotency key was used for another request; use a new key"}
}

func malformed(err error) Result { return Result{Code: CodeMalformed, Detail: err.Error()} }

type idempotencyRecord struct {
	requestHash uint64
	expires     hlc.Time
	// claim says that the request is carried out at another shard, or is yet to be: there is no result.
	claim  bool
	result Result
}

var idempotencyCodec = Codec[*idempotencyRecord]{
	Append: func(dst []byte, rec *idempotencyRecord) []byte {
		dst = binary.LittleEndian.AppendUint64(dst, rec.requestHash)
		dst = binary.AppendUvarint(dst, uint64(rec.expires))
		if rec.claim {
			return dst
		}
		return AppendResult(dst, &rec.result)
	},
	Decode: func(data []byte) (*idempotencyRecord, error) {
		d := decoder{rest: bytes.Clone(data)}
		rec := &idempotencyRecord{requestHash: d.uint64(), expires: hlc.Time(d.uvarint())}
		if d.err != nil {
			return nil, d.err
		}
		if rec.claim = len(d.rest) == 0; rec.claim { // every result has some bytes
			return rec, nil
		}
		var err error
		rec.result, _, err = DecodeResult(d.rest)
		return rec, err
	},
	Size: func(rec *idempotencyRecord) int { return 64 + len(rec.result.Payload) },
}

// outbox holds the unfinished messages: all in memory, the ones that outlive a flush also in the store.
type outbox struct {
	prefix     []byte
	messages   map[uint64]*outboxRow
	dirty      []*outboxRow
	dirtyBytes int
}

type outboxRow struct {
	message             Message // others hold pointers to it
	dead, dirty, stored bool
}

func (o *outbox) find(seq uint64) (*Message, bool) {
	r, ok := o.messages[seq]
	if !ok {
		return nil, false
	}
	return &r.message, true
}

func (o *outbox) add(m Message) *Message {
	r := &outboxRow{message: m}
	o.messages[m.Seq] = r
	o.touch(r)
	o.dirtyBytes += len(m.Payload) + 64
	return &r.message
}

func (o *outbox) remove(seq uint64) bool {
	r, ok := o.messages[seq]
	if !ok {
		return false
	}
	r.dead = true
	delete(o.messages, seq)
	o.touch(r)
	return true
}

func (o *outbox) touch(r *outboxRow) {
	if !r.dirty {
		r.dirty = true
		o.dirty = append(o.dirty, r)
	}
}

func (o *outbox) list() []*Message {
	all := make([]*Message, 0, len(o.messages))
	for _, r := range o.messages {
		all = append(all, &r.message)
	}
	slices.SortFunc(all, func(a, b *Message) int {
		if a.Seq < b.Seq {
			return -1
		}
		return 1
	})
	return all
}

func (o *outbox) key(seq uint64) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(o.prefix), seq)
}

func (o *outbox) flush(b store.Batch) {
	for _, r := range o.dirty {
		r.dirty = false
		switch {
		case !r.dead:
			b.Set(o.key(r.message.Seq), appendMessage(nil, &r.message))
			r.stored = true
		case r.stored:
			b.Delete(o.key(r.message.Seq))
		}
	}
	o.dirty, o.dirtyBytes = o.dirty[:0], 0
}

func (o *outbox) load(r store.Reader) error {
	it, err := r.Iter(o.prefix, prefixEnd(o.prefix))
	if err != nil {
		return err
	}
	for it.Next() {
		m, err := decodeMessage(it.Value())
		if err != nil {
			return errors.Join(err, it.Close())
		}
		o.messages[m.Seq] = &outboxRow{message: *m, stored: true}
	}
	return it.Close()
}

func appendMessage(dst []byte, m *Message) []byte {
	dst = binary.AppendUvarint(dst, m.Seq)
	dst = binary.AppendUvarint(dst, uint64(m.To))
	dst = binary.AppendUvarint(dst, uint64(m.Created))
	dst = binary.AppendUvarint(dst, uint64(m.NotBefore))
	dst = appendString(dst, m.Key)
	dst = binary.AppendUvarint(dst, uint64(len(m.Payload)))
	return append(dst, m.Payload...)
}

func decodeMessage(data []byte) (*Message, error) {
	d := decoder{rest: bytes.Clone(data)}
	m := &Message{
		Seq: d.uvarint(), To: ID(d.uvarint()), Created: hlc.Time(d.uvarint()), NotBefore: hlc.Time(d.uvarint()),
		Key: string(d.bytes()), Payload: d.bytes(),
	}
	if d.err == nil && len(d.rest) > 0 {
		d.fail("end")
	}
	return m, d.err
}
