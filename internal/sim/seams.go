package sim

import (
	"bytes"

	"hanse/api/paymentpb"
	"hanse/internal/reactor"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/store"
	"hanse/internal/transport"
)

// Mutant is a deliberate bug, put in through the seams between the parts: nothing of it is in the parts themselves. A nil
// *Mutant is the program as it is.
type Mutant struct {
	Name string
	// Bug says what is wrong.
	Bug string
	// Nodes is the size of the clusters that can show it, 0 for any.
	Nodes int

	apply       func(b *tamperedBatch, sync bool) (fixed *tamperedBatch, fixedSync bool)
	hides       func(id shard.ID, prefix, key []byte) bool
	wrapMachine func(id shard.ID, n *node, m shard.Machine) shard.Machine
	logics      map[shard.Service]func(inner shard.Logic, tx *shard.Tx, payload []byte) shard.Result
	editOutbox  func([]*shard.Message) []*shard.Message
	delivery    func(n *node, d reactor.Delivery, answered func(shard.Result, error)) bool
	call        func(*paymentpb.ProviderCall)
	answer      func(*paymentpb.ProviderCall, *paymentpb.ProviderAnswer) *paymentpb.ProviderAnswer
	consistency func(replica.Consistency) replica.Consistency
	route       func(n *node, id shard.ID) shard.ID
	proposing   func(n *node, q *request)
	// held decides whether the answer to a tentative reserve says that the stock is held.
	held func(r shard.Result) bool
	// reuseNumbers has a node whose disk was lost come back under its old replica numbers.
	reuseNumbers bool
	// hearOldBoots has a node that runs on an old copy of its disk be heard like any other.
	hearOldBoots bool
	// chunk changes a piece of a snapshot on its way out.
	chunk   func(w *World, m *transport.Message)
	sending func(n *node, messages []replica.Outgoing) []replica.Outgoing
}

// or returns a mutant whose hooks can be looked at.
func (m *Mutant) or() *Mutant {
	if m == nil {
		return &Mutant{}
	}
	return m
}

func (m *Mutant) engine(e store.Engine) store.Engine {
	if m == nil || m.apply == nil {
		return e
	}
	return &tamperedEngine{e, m.apply}
}

// tamperedEngine has its batches changed before they are applied.
type tamperedEngine struct {
	store.Engine
	edit func(*tamperedBatch, bool) (*tamperedBatch, bool)
}

// tamperedBatch remembers what was asked for.
type tamperedBatch struct{ changes []change }

type change struct {
	key, value, to []byte // a range up to to, or a set; a deletion has neither
	isSet          bool
}

func (e *tamperedEngine) NewBatch() store.Batch { return new(tamperedBatch) }

func (e *tamperedEngine) Apply(b store.Batch, sync bool) error {
	edited, sync := e.edit(b.(*tamperedBatch), sync)
	out := e.Engine.NewBatch()
	for _, c := range edited.changes {
		switch {
		case c.isSet:
			out.Set(c.key, c.value)
		case c.to != nil:
			out.DeleteRange(c.key, c.to)
		default:
			out.Delete(c.key)
		}
	}
	return e.Engine.Apply(out, sync)
}

func (b *tamperedBatch) Set(key, value []byte) {
	b.changes = append(b.changes, change{key: bytes.Clone(key), value: append([]byte{}, value...), isSet: true})
}
func (b *tamperedBatch) Delete(key []byte) {
	b.changes = append(b.changes, change{key: bytes.Clone(key)})
}
func (b *tamperedBatch) DeleteRange(lo, hi []byte) {
	b.changes = append(b.changes, change{key: bytes.Clone(lo), to: bytes.Clone(hi)})
}
func (b *tamperedBatch) Len() (n int) {
	for _, c := range b.changes {
		n += len(c.key) + len(c.value)
	}
	return n
}
func (b *tamperedBatch) Empty() bool { return len(b.changes) == 0 }
func (b *tamperedBatch) Close()      {}

func (m *Mutant) reader(id shard.ID, r store.Reader) store.Reader {
	if m == nil || m.hides == nil {
		return r
	}
	return &blindReader{r, func(prefix, key []byte) bool { return m.hides(id, prefix, key) }}
}

// blindReader does not see some keys.
type blindReader struct {
	store.Reader
	hides func(prefix, key []byte) bool
}

func (r *blindReader) Get(key []byte) ([]byte, error) {
	if r.hides(key, key) {
		return nil, store.ErrNotFound
	}
	return r.Reader.Get(key)
}

func (r *blindReader) Iter(lo, hi []byte) (store.Iterator, error) {
	if r.hides(lo, lo) {
		hi = lo
	}
	return r.Reader.Iter(lo, hi)
}

func (m *Mutant) machine(id shard.ID, n *node, machine shard.Machine) shard.Machine {
	if m == nil || m.wrapMachine == nil {
		return machine
	}
	return m.wrapMachine(id, n, machine)
}

// tamperedMachine gets other entries than were committed.
type tamperedMachine struct {
	shard.Machine
	apply func(inner shard.Machine, e shard.Entry) shard.Applied
}

func (m *tamperedMachine) Apply(e shard.Entry) shard.Applied { return m.apply(m.Machine, e) }

func (m *Mutant) logic(id shard.ID, build func(*shard.State) shard.Logic) func(*shard.State) shard.Logic {
	apply := m.or().logics[id.Service()]
	if apply == nil {
		return build
	}
	return func(s *shard.State) shard.Logic { return &tamperedLogic{build(s), apply} }
}

// tamperedLogic decides otherwise.
type tamperedLogic struct {
	shard.Logic
	apply func(inner shard.Logic, tx *shard.Tx, payload []byte) shard.Result
}

func (l *tamperedLogic) Apply(tx *shard.Tx, payload []byte) shard.Result {
	return l.apply(l.Logic, tx, payload)
}
