package sim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"hanse/api/inventorypb"
	"hanse/api/orderpb"
	"hanse/api/paymentpb"
	"hanse/internal/hlc"
	"hanse/internal/reactor"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/slot"
	"hanse/internal/transport"

	pb "go.etcd.io/raft/v3/raftpb"
)

// The parts of a node's keys that the bugs tell apart; see package replica.
func isLogKey(key []byte) bool     { return len(key) == 17 && bytes.HasPrefix(key[6:], []byte("/l/")) }
func isHardKey(key []byte) bool    { return bytes.HasSuffix(key, []byte("/t/hard")) }
func isAppliedKey(key []byte) bool { return bytes.HasSuffix(key, []byte("/t/applied")) }

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

// Mutants returns the deliberate bugs. Those that count do so from zero after each call.
func Mutants() []*Mutant {
	return slices.Concat(storageMutants(), applyMutants(), effectMutants(), protocolMutants())
}

// storageMutants lose or invent what is on disk.
func storageMutants() []*Mutant {
	syncs, flushes := 0, 0
	return []*Mutant{
		{
			Name: "ack-before-sync", Bug: "every second sync is left out, and what it was to make durable is acknowledged all the same",
			apply: func(b *tamperedBatch, sync bool) (*tamperedBatch, bool) {
				syncs++
				return b, sync && syncs%2 == 0
			},
		},
		{
			Name: "vote-not-persisted", Bug: "term and vote are written only together with entries",
			apply: func(b *tamperedBatch, sync bool) (*tamperedBatch, bool) {
				logged := make(map[string]bool)
				for _, c := range b.changes {
					if c.isSet && isLogKey(c.key) {
						logged[string(c.key[:6])] = true
					}
				}
				b.changes = slices.DeleteFunc(b.changes, func(c change) bool { return c.isSet && isHardKey(c.key) && !logged[string(c.key[:6])] })
				return b, sync
			},
		},
		{
			Name: "applied-twice-after-restart", Bug: "every second flush of a state leaves the applied index behind",
			apply: func(b *tamperedBatch, sync bool) (*tamperedBatch, bool) {
				if flushes++; !sync && flushes%2 == 0 {
					b.changes = slices.DeleteFunc(b.changes, func(c change) bool { return c.isSet && isAppliedKey(c.key) })
				}
				return b, sync
			},
		},
		{
			Name: "log-cut-too-far", Bug: "a truncation of the log takes ten entries more than are durably applied",
			apply: func(b *tamperedBatch, sync bool) (*tamperedBatch, bool) {
				for i, c := range b.changes {
					if c.to != nil && isLogKey(c.key) && isLogKey(c.to) && b.truncates(c.key) {
						b.changes[i].to[16] += 10
					}
				}
				return b, sync
			},
		},
		{
			Name: "idempotency-lost-on-reload", Bug: "a state that is read back, after a restart or from a snapshot, is without its idempotency records",
			hides: func(_ shard.ID, _, key []byte) bool { return len(key) > 9 && key[9] == 'I' },
		},
		{
			Name: "outbox-lost-on-reload", Bug: "a state that is read back is without its outbox",
			hides: func(_ shard.ID, _, key []byte) bool { return len(key) > 9 && key[9] == 'O' },
		},
	}
}

// truncates reports whether the batch records a truncation of the group of key.
func (b *tamperedBatch) truncates(key []byte) bool {
	return slices.ContainsFunc(b.changes, func(c change) bool {
		return c.isSet && bytes.HasSuffix(c.key, []byte("/t/trunc")) && bytes.Equal(c.key[:6], key[:6])
	})
}

// applyMutants make replicas compute what is not in the log.
func applyMutants() []*Mutant {
	return []*Mutant{
		{
			Name: "map-order-in-apply", Bug: "each replica takes the commands of an entry in an order of its own",
			wrapMachine: func(_ shard.ID, n *node, m shard.Machine) shard.Machine {
				return &tamperedMachine{m, func(inner shard.Machine, e shard.Entry) shard.Applied {
					if n.id%2 == 0 {
						return inner.Apply(e)
					}
					slices.Reverse(e.Commands)
					a := inner.Apply(e)
					slices.Reverse(a.Results)
					return a
				}}
			},
		},
		{
			Name: "wall-clock-in-apply", Bug: "apply takes the time from the replica's clock instead of the entry",
			wrapMachine: func(_ shard.ID, n *node, m shard.Machine) shard.Machine {
				return &tamperedMachine{m, func(inner shard.Machine, e shard.Entry) shard.Applied {
					e.Time = hlc.FromMillis(n.wall())
					return inner.Apply(e)
				}}
			},
		},
		{
			Name: "ttl-by-replica", Bug: "what is due is decided by each replica's clock",
			wrapMachine: func(_ shard.ID, n *node, m shard.Machine) shard.Machine {
				return &tamperedMachine{m, func(inner shard.Machine, e shard.Entry) shard.Applied {
					if len(e.Commands) > 0 && e.Commands[0].Kind == shard.KindTick {
						e.Time = hlc.FromMillis(n.wall())
					}
					return inner.Apply(e)
				}}
			},
		},
		{
			Name: "idempotency-ignored", Bug: "the idempotency key of a command is not looked at",
			wrapMachine: func(_ shard.ID, _ *node, m shard.Machine) shard.Machine {
				return &tamperedMachine{m, func(inner shard.Machine, e shard.Entry) shard.Applied {
					for i := range e.Commands {
						e.Commands[i].Key = ""
					}
					return inner.Apply(e)
				}}
			},
		},
		{
			Name: "released-twice", Bug: "each release of an order's hold gives a unit back, also one of a hold that was released before",
			logics: map[shard.Service]logicFunc{shard.Inventory: func(inner shard.Logic, tx *shard.Tx, payload []byte) shard.Result {
				r := inner.Apply(tx, payload)
				if c := inventoryCommand(payload).GetRelease(); c != nil && len(c.Demands) == 0 && r.OK() {
					h := new(inventorypb.Hold)
					q := inner.Query(encode(&inventorypb.Query{Body: &inventorypb.Query_Hold{Hold: &inventorypb.FindHold{Id: c.HoldId}}}))
					if h.UnmarshalVT(q.Payload) == nil && len(h.Lines) > 0 && h.UpdatedAt != tx.Now.Millis() {
						inner.Apply(tx, encode(&inventorypb.Command{Body: &inventorypb.Command_Adjust{Adjust: &inventorypb.Adjust{Sku: h.Lines[0].Sku, Quantity: 1}}}))
					}
				}
				return r
			}},
		},
		{
			Name: "refused-for-what-is-tentative", Bug: "adjustments and reservations are refused for what is held tentatively, though they could wait",
			logics: map[shard.Service]logicFunc{shard.Inventory: func(inner shard.Logic, tx *shard.Tx, payload []byte) shard.Result {
				c := inventoryCommand(payload)
				switch {
				case c.GetAdjust() != nil:
					c.GetAdjust().AwaitTentative = false
				case c.GetReserve() != nil:
					c.GetReserve().AwaitTentative = false
				default:
					return inner.Apply(tx, payload)
				}
				return inner.Apply(tx, encode(c))
			}},
		},
		{
			Name: "released-hold-forgotten", Bug: "a reserve that comes after its release takes the stock (no tombstone)",
			logics: map[shard.Service]logicFunc{shard.Inventory: func(inner shard.Logic, tx *shard.Tx, payload []byte) shard.Result {
				r := inner.Apply(tx, payload)
				if c := inventoryCommand(payload); c.GetReserve() != nil && r.Code == "reservation_canceled" {
					c.GetReserve().HoldId += "x"
					return inner.Apply(tx, encode(c))
				}
				return r
			}},
		},
		{
			Name: "hold-expires-while-paying", Bug: "the hold of an order expires by itself after two seconds",
			logics: map[shard.Service]logicFunc{shard.Inventory: func(inner shard.Logic, tx *shard.Tx, payload []byte) shard.Result {
				if c := inventoryCommand(payload); c.GetReserve() != nil && !c.GetReserve().FreeStanding {
					c.GetReserve().FreeStanding = true
					c.GetReserve().Due = tx.Now.Millis() + 2000
					return inner.Apply(tx, encode(c))
				}
				return inner.Apply(tx, payload)
			}},
		},
		{
			Name: "fulfilled-twice", Bug: "a fulfillment that comes again takes the stock again, where there is any",
			logics: map[shard.Service]logicFunc{shard.Inventory: func(inner shard.Logic, tx *shard.Tx, payload []byte) shard.Result {
				if c := inventoryCommand(payload); c.GetFulfill() != nil {
					c.GetFulfill().Op += fmt.Sprint(tx.Index)
					return inner.Apply(tx, encode(c))
				}
				return inner.Apply(tx, payload)
			}},
		},
		{
			Name: "key-granted-blindly", Bug: "a key is granted to whoever claims it",
			logics: map[shard.Service]logicFunc{shard.Order: func(inner shard.Logic, tx *shard.Tx, payload []byte) shard.Result {
				r := inner.Apply(tx, payload)
				c := new(orderpb.Command)
				if r.Code == shard.CodeKeyReused && c.UnmarshalVT(payload) == nil && c.GetClaimKey() != nil {
					return shard.Result{}
				}
				return r
			}},
		},
		{
			Name: "cancel-lost", Bug: "every fifth cancel is accepted and forgotten",
			logics: map[shard.Service]logicFunc{shard.Order: func(inner shard.Logic, tx *shard.Tx, payload []byte) shard.Result {
				c := new(orderpb.Command)
				if c.UnmarshalVT(payload) == nil && c.GetCancel() != nil && tx.Index%5 == 0 {
					return shard.Result{Payload: encode(&orderpb.Receipt{Id: c.GetCancel().Id})}
				}
				return inner.Apply(tx, payload)
			}},
		},
	}
}

type logicFunc = func(inner shard.Logic, tx *shard.Tx, payload []byte) shard.Result

func inventoryCommand(payload []byte) *inventorypb.Command {
	c := new(inventorypb.Command)
	if c.UnmarshalVT(payload) != nil {
		return new(inventorypb.Command)
	}
	return c
}

// effectMutants get what leaves a shard wrong.
func effectMutants() []*Mutant {
	return []*Mutant{
		{
			Name: "compensation-skipped", Bug: "a release is taken for done without being sent",
			delivery: func(_ *node, d reactor.Delivery, answered func(shard.Result, error)) bool {
				c := inventoryCommand(d.Message.Payload).GetRelease()
				if d.Message.To.Service() != shard.Inventory || c == nil {
					return false
				}
				answered(shard.Result{}, nil)
				return true
			},
		},
		{
			Name: "finished-when-sent", Bug: "a message to the inventory is taken for done as soon as it is sent",
			delivery: func(n *node, d reactor.Delivery, answered func(shard.Result, error)) bool {
				if d.Message.To.Service() != shard.Inventory {
					return false
				}
				c := shard.Command{Kind: shard.KindLogic, Payload: d.Message.Payload}
				n.router.propose(d.Message.To, c, false, false, n.w.now+deliveryTimeout, func(shard.Result, error) {})
				answered(shard.Result{}, nil)
				return true
			},
		},
		{
			Name: "outbox-cursor-ahead", Bug: "a new leader begins after the messages that the old one had not delivered",
			editOutbox: func([]*shard.Message) []*shard.Message { return nil },
		},
		{
			Name: "outbox-before-commit", Bug: "stock is reserved when an order is proposed, before it is committed",
			proposing: func(n *node, q *request) {
				c := new(orderpb.Command)
				if q.shard.Service() != shard.Order || q.command.Kind != shard.KindLogic || c.UnmarshalVT(q.command.Payload) != nil || c.GetPlace() == nil {
					return
				}
				for _, l := range c.GetPlace().Lines {
					if l.Untracked {
						continue
					}
					reserve := &inventorypb.Command{Body: &inventorypb.Command_Reserve{Reserve: &inventorypb.Reserve{
						HoldId: c.GetPlace().Id, Demands: []*inventorypb.Demand{{Sku: l.Sku, Quantity: l.Quantity, Line: 1}},
					}}}
					n.router.propose(n.w.plan.Layout.Shard(shard.Inventory, slot.Of(l.Sku)), shard.Command{Kind: shard.KindLogic, Payload: encode(reserve)},
						false, true, n.w.now+deliveryTimeout, func(shard.Result, error) {})
				}
			},
		},
		{
			Name: "paid-before-held", Bug: "an authorization leaves with the reserves, whatever the inventory says to them",
			delivery: func(n *node, d reactor.Delivery, _ func(shard.Result, error)) bool {
				if d.Message.To.Service() != shard.Inventory || inventoryCommand(d.Message.Payload).GetReserve() == nil {
					return false
				}
				n.sendAuthorization(d)
				return false
			},
		},
		{
			Name: "paid-before-claimed", Bug: "an authorization leaves with the claim of the order's key, whatever comes of it",
			delivery: func(n *node, d reactor.Delivery, _ func(shard.Result, error)) bool {
				c := new(orderpb.Command)
				if d.From.Service() != shard.Order || d.Message.To.Service() != shard.Order || c.UnmarshalVT(d.Message.Payload) != nil || c.GetClaimKey() == nil {
					return false
				}
				n.sendAuthorization(d)
				return false
			},
		},
		{
			Name: "not-lapsed", Bug: "the inventory is told that an order is not there, and the order may be placed all the same",
			proposing: func(_ *node, q *request) {
				c := new(orderpb.Command)
				if q.shard.Service() == shard.Order && q.command.Kind == shard.KindLogic && c.UnmarshalVT(q.command.Payload) == nil && c.GetAskHold() != nil {
					c.GetAskHold().Tentative = false
					q.command.Payload = encode(c)
				}
			},
		},
		{
			Name: "early-taken-for-held", Bug: "a tentative reserve that was refused is taken for one that holds",
			held: func(shard.Result) bool { return true },
		},
		{
			Name: "void-does-not-ask", Bug: "a void takes an authorization that is not on record for one that has never left",
			delivery: func(n *node, d reactor.Delivery, answered func(shard.Result, error)) bool {
				c := new(paymentpb.Command)
				if d.Message.To.Service() != shard.Payment || c.UnmarshalVT(d.Message.Payload) != nil || c.GetVoid() == nil {
					return false
				}
				c.GetVoid().Authorize = nil
				n.router.propose(d.Message.To, shard.Command{Kind: shard.KindLogic, Payload: encode(c)}, true, true, n.w.now+deliveryTimeout, answered)
				return true
			},
		},
		{
			Name: "told-before-answered", Bug: "an order is told that it is paid when the provider has only been asked",
			delivery: func(n *node, d reactor.Delivery, _ func(shard.Result, error)) bool {
				c := new(paymentpb.Command)
				if d.Message.To.Service() == shard.Payment && c.UnmarshalVT(d.Message.Payload) == nil && c.GetAuthorize().GetCallFirst() {
					c.GetAuthorize().Answer = &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED}
					n.tellOrder(c.GetAuthorize(), n.w.now+deliveryTimeout, func() {})
				}
				return false
			},
		},
		{
			Name: "provider-new-key", Bug: "a call that is repeated has another idempotency key",
			call: func(c *paymentpb.ProviderCall) { c.Key = fmt.Sprint(c.Key, ".", c.Attempt) },
		},
		{
			Name: "refund-above-capture", Bug: "a refund pays a cent more than was asked for",
			call: func(c *paymentpb.ProviderCall) {
				if c.Kind == paymentpb.OpKind_REFUND {
					c.Amount++
				}
			},
			answer: func(c *paymentpb.ProviderCall, a *paymentpb.ProviderAnswer) *paymentpb.ProviderAnswer {
				if c.Kind == paymentpb.OpKind_REFUND && a.Amount > 0 {
					return &paymentpb.ProviderAnswer{Status: a.Status, Reference: a.Reference, Amount: a.Amount - 1}
				}
				return a
			},
		},
		{
			Name: "unknown-taken-for-declined", Bug: "a provider that does not answer is taken to have declined",
			answer: func(_ *paymentpb.ProviderCall, a *paymentpb.ProviderAnswer) *paymentpb.ProviderAnswer {
				if a.Status == paymentpb.ProviderStatus_PROVIDER_UNKNOWN {
					return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_DECLINED}
				}
				return a
			},
		},
		{
			Name: "unknown-taken-for-paid", Bug: "a provider that does not answer is taken to have agreed",
			answer: func(c *paymentpb.ProviderCall, a *paymentpb.ProviderAnswer) *paymentpb.ProviderAnswer {
				if a.Status == paymentpb.ProviderStatus_PROVIDER_UNKNOWN {
					return &paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Amount: c.Amount}
				}
				return a
			},
		},
		{
			Name: "capture-not-sent", Bug: "every capture is taken for done without the provider",
			delivery: func(_ *node, d reactor.Delivery, answered func(shard.Result, error)) bool {
				c := new(paymentpb.ProviderCall)
				if d.Message.To != shard.PSP || c.UnmarshalVT(d.Message.Payload) != nil || c.Kind != paymentpb.OpKind_CAPTURE {
					return false
				}
				answered(shard.Result{Payload: encode(&paymentpb.ProviderAnswer{Status: paymentpb.ProviderStatus_PROVIDER_SUCCEEDED, Amount: c.Amount})}, nil)
				return true
			},
		},
	}
}

// sendAuthorization has the authorization of a message's order leave at once.
func (n *node) sendAuthorization(d reactor.Delivery) {
	_ = n.host.Do(d.From, func(m shard.Machine) { // an error says that the node does not lead any more
		for _, a := range m.Outbox() {
			if a.To.Service() == shard.Payment && a.Key == d.Message.Key {
				n.router.propose(a.To, shard.Command{Kind: shard.KindLogic, Payload: a.Payload}, false, true, n.w.now+deliveryTimeout,
					func(shard.Result, error) {})
			}
		}
	})
}

// protocolMutants break what nodes agree on.
func protocolMutants() []*Mutant {
	return []*Mutant{
		{
			Name: "read-without-readindex", Bug: "a leader answers reads without asking whether it still leads",
			consistency: func(replica.Consistency) replica.Consistency { return replica.Stale },
		},
		{
			Name: "session-token-ignored", Bug: "a follower does not wait for the index that a read has to see",
			consistency: func(c replica.Consistency) replica.Consistency {
				if c == replica.AtLeast {
					return replica.Stale
				}
				return c
			},
		},
		{
			Name: "stale-route-accepted", Bug: "node 1 routes keys by an old map, and the shard that owned them before accepts them",
			route: func(n *node, id shard.ID) shard.ID {
				if n.id == 1 && id.Service() == shard.Keyspace {
					return shard.NewID(shard.Keyspace, 0)
				}
				return id
			},
		},
		{
			Name: "replica-number-reused", Bug: "a node whose disk was lost comes back empty under its old numbers, and votes again",
			reuseNumbers: true,
		},
		{
			Name: "old-disk-accepted", Bug: "a node that comes back with an old copy of its disk is not refused", Nodes: 3,
			hearOldBoots: true,
		},
		{
			Name: "stale-snapshot-membership", Bug: "a snapshot carries the members that the group began with", Nodes: 5,
			chunk: firstMembers,
		},
		{
			Name: "ack-counted-twice", Bug: "an acknowledgment also counts for another replica", Nodes: 5,
			sending: func(n *node, messages []replica.Outgoing) []replica.Outgoing {
				for _, m := range slices.Clone(messages) {
					r := m.Message.Raft
					if r.GetType() != pb.MsgAppResp || r.GetReject() {
						continue
					}
					other := uint64(n.id)%uint64(len(n.w.nodes)) + 1
					if other == r.GetTo() {
						continue
					}
					m.Message.Raft = proto.Clone(r).(*pb.Message)
					m.Message.Raft.From = new(other)
					messages = append(messages, m)
				}
				return messages
			},
		},
		{
			Name: "learner-counted-as-voter", Bug: "an acknowledgment of a learner counts as that of a voter", Nodes: 5,
			sending: func(n *node, messages []replica.Outgoing) []replica.Outgoing {
				for i := range messages {
					r, id := messages[i].Message.Raft, shard.ID(messages[i].Message.Group)
					if r.GetType() != pb.MsgAppResp || r.GetReject() || !n.host.IsLearner(id, r.GetFrom()) {
						continue
					}
					for _, m := range n.host.Members(id) {
						if m.ID != r.GetTo() && m.ID != r.GetFrom() && !n.host.IsLearner(id, m.ID) {
							messages[i].Message.Raft = proto.Clone(r).(*pb.Message)
							messages[i].Message.Raft.From = new(m.ID)
						}
					}
				}
				return messages
			},
		},
		{
			Name: "vote-counted-twice", Bug: "a vote also counts for another replica", Nodes: 5,
			sending: func(n *node, messages []replica.Outgoing) []replica.Outgoing {
				for _, m := range slices.Clone(messages) {
					r := m.Message.Raft
					if t := r.GetType(); t != pb.MsgVoteResp && t != pb.MsgPreVoteResp || r.GetReject() {
						continue
					}
					other := uint64(n.id)%uint64(len(n.w.nodes)) + 1
					m.Message.Raft = proto.Clone(r).(*pb.Message)
					m.Message.Raft.From = new(other)
					messages = append(messages, m)
				}
				return messages
			},
		},
	}
}

// firstMembers puts the membership that a group began with into the last piece of a snapshot; see package replica for its fields.
func firstMembers(w *World, m *transport.Message) {
	if !replica.IsLastChunk(m) {
		return
	}
	var members []uint64
	for _, r := range w.placement(shard.ID(m.Group)) {
		members = append(members, r.ID)
	}
	body := m.Body[:1:1]
	rest := m.Body[1:]
	copyUvarints := func(n int) {
		for range n {
			_, size := binary.Uvarint(rest)
			body, rest = append(body, rest[:size]...), rest[size:]
		}
	}
	copyUvarints(1) // sequence
	body, rest = append(body, rest[:4]...), rest[4:]
	copyUvarints(1) // term
	body, rest = append(body, rest[0]), rest[1:]
	copyUvarints(3) // index, term and time of the state
	body = binary.AppendUvarint(body, uint64(len(members)))
	for _, id := range members {
		body = binary.AppendUvarint(body, id)
	}
	body = append(body, 0, 0, 0, 0) // no learners, no other half, no joint configuration to leave
	body = binary.AppendUvarint(body, uint64(len(members)))
	for _, id := range members {
		body = binary.AppendUvarint(body, id) // in the beginning replica n was on node n
		body = binary.AppendUvarint(body, id)
	}
	m.Body = body
}
