package sim

import (
	"fmt"
	"time"

	"github.com/anishathalye/porcupine"

	"hanse/api/keyspacepb"
	"hanse/internal/reject"
	"hanse/internal/shard"
)

// history is what the clients saw of the keys, by key.
type history struct {
	ops   map[string][]*keyOp
	names []string
}

type keyKind uint8

const (
	keyGet keyKind = iota
	keyPut
	keyCAS
	keyDelete
)

// keyOp is an operation on a key and its answer.
type keyOp struct {
	client      int
	kind        keyKind
	value       string
	expected    uint64
	call, ret   int64
	ended       bool
	unknown     bool // it may have happened, at any time since
	code        string
	outValue    string
	outVersion  uint64
	neverCalled bool
}

func newHistory() *history { return &history{ops: make(map[string][]*keyOp)} }

func (h *history) begin(key string, client int, now int64) *keyOp {
	o := &keyOp{client: client, call: now}
	if h.ops[key] == nil {
		h.names = append(h.names, key)
	}
	h.ops[key] = append(h.ops[key], o)
	return o
}

func (h *history) end(w *World, o *keyOp, r shard.Result) {
	o.ended, o.ret, o.code = true, w.now, r.Code
	if len(r.Payload) > 0 {
		v := new(keyspacepb.Value)
		if err := v.UnmarshalVT(r.Payload); err != nil {
			w.fail("answer", "value does not decode: %v", err)
			return
		}
		o.outValue, o.outVersion = string(v.Value), v.Version
	}
}

// latest returns a version of the key that was seen lately, most often the newest.
func (h *history) latest(key string, r *random) uint64 {
	version := uint64(0)
	for _, o := range h.ops[key] {
		if o.ended && o.code == "" {
			version = max(version, o.outVersion)
		}
	}
	if version > 0 && r.chance(0.2) {
		version--
	}
	return version
}

// register is a key's state.
type register struct {
	value   string
	version uint64
	exists  bool
}

var registerModel = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(register), input.(*keyOp), output.(*keyOp)
		switch in.kind {
		case keyGet:
			if !s.exists {
				return out.code == reject.KeyNotFound, s
			}
			return out.code == "" && out.outValue == s.value && out.outVersion == s.version, s
		case keyPut:
			next := register{in.value, s.version + 1, true}
			return out.unknown || out.code == "" && out.outVersion == next.version, next
		case keyCAS:
			matches := in.expected == s.version && s.exists || in.expected == 0 && !s.exists
			next := s
			if matches {
				next = register{in.value, s.version + 1, true}
			}
			switch {
			case out.unknown:
				return true, next
			case matches:
				return out.code == "" && out.outVersion == next.version, next
			}
			return out.code == reject.VersionMismatch, s
		case keyDelete:
			if !s.exists {
				return out.unknown || out.code == reject.KeyNotFound || out.code == "", s
			}
			return out.unknown || out.code == "", register{version: s.version + 1}
		}
		return false, s
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(*keyOp), output.(*keyOp)
		return fmt.Sprintf("%d(%q, %d) -> %q %q %d", in.kind, in.value, in.expected, out.code, out.outValue, out.outVersion)
	},
}

// linearizabilityTime bounds one key's check in real time: a history with many unknown outcomes may take for ever.
const linearizabilityTime = 10 * time.Second

// check looks for an order of all operations on each key that explains every answer (Herlihy and Wing, 1990).
func (h *history) check(w *World) {
	for _, name := range h.names {
		var ops []porcupine.Operation
		for _, o := range h.ops[name] {
			if !o.ended && !o.unknown {
				if o.kind == keyGet || o.neverCalled {
					continue
				}
				o.unknown = true
			}
			end := o.ret
			if o.unknown {
				end = 1 << 62
			}
			ops = append(ops, porcupine.Operation{ClientId: o.client, Input: o, Output: o, Call: o.call, Return: end})
		}
		switch porcupine.CheckOperationsTimeout(registerModel, ops, linearizabilityTime) {
		case porcupine.Illegal:
			w.fail("linearizability", "key %s: no order explains its %d operations:%s", name, len(ops), describe(h.ops[name]))
		case porcupine.Unknown:
			w.hit(probeUndecided)
		}
	}
}

func describe(ops []*keyOp) string {
	text := ""
	for _, o := range ops {
		text += fmt.Sprintf("\n    %9.3f-%9.3f client %d %s", float64(o.call)/float64(second), float64(o.ret)/float64(second), o.client, registerModel.DescribeOperation(o, o))
	}
	return text
}
