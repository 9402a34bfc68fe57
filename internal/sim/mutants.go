package sim

import (
	"fmt"

	"hanse/api/paymentpb"
	"hanse/internal/reactor"
	"hanse/internal/shard"
	"hanse/internal/store"
)

// Mutant is a deliberate bug, put in through the seams between the parts. A nil *Mutant is the program as it is.
type Mutant struct {
	Name string
	// Bug says what is wrong.
	Bug string

	wrapEngine  func(store.Engine) store.Engine
	wrapReader  func(shard.ID, store.Reader) store.Reader
	wrapMachine func(shard.ID, *node, shard.Machine) shard.Machine
	wrapLogic   func(shard.ID, *shard.State, shard.Logic) shard.Logic
	editOutbox  func(shard.ID, []*shard.Message) []*shard.Message
	delivery    func(*node, reactor.Delivery, func(shard.Result, error)) bool
	call        func(*paymentpb.ProviderCall) *paymentpb.ProviderCall
}

func (m *Mutant) engine(e store.Engine) store.Engine {
	if m == nil || m.wrapEngine == nil {
		return e
	}
	return m.wrapEngine(e)
}

func (m *Mutant) reader(id shard.ID, r store.Reader) store.Reader {
	if m == nil || m.wrapReader == nil {
		return r
	}
	return m.wrapReader(id, r)
}

func (m *Mutant) machine(id shard.ID, n *node, machine shard.Machine) shard.Machine {
	if m == nil || m.wrapMachine == nil {
		return machine
	}
	return m.wrapMachine(id, n, machine)
}

func (m *Mutant) logic(id shard.ID, build func(*shard.State) shard.Logic) func(*shard.State) shard.Logic {
	if m == nil || m.wrapLogic == nil {
		return build
	}
	return func(s *shard.State) shard.Logic { return m.wrapLogic(id, s, build(s)) }
}

func (m *Mutant) outbox(id shard.ID, messages []*shard.Message) []*shard.Message {
	if m == nil || m.editOutbox == nil {
		return messages
	}
	return m.editOutbox(id, messages)
}

func (m *Mutant) deliver(n *node, d reactor.Delivery, answered func(shard.Result, error)) bool {
	return m != nil && m.delivery != nil && m.delivery(n, d, answered)
}

func (m *Mutant) providerCall(c *paymentpb.ProviderCall) *paymentpb.ProviderCall {
	if m == nil || m.call == nil {
		return c
	}
	return m.call(c)
}

// Mutants lists the deliberate bugs.
func Mutants() []*Mutant { return nil }

func mutantByName(name string) (*Mutant, error) {
	if name == "" || name == "list" {
		return nil, nil
	}
	for _, m := range Mutants() {
		if m.Name == name {
			return m, nil
		}
	}
	return nil, fmt.Errorf("there is no mutant %q", name)
}
