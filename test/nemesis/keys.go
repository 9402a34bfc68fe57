package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"hanse/client"
)

// verb is what is done to a key.
type verb string

const (
	get    verb = "get"
	put    verb = "put"
	cas    verb = "cas"
	remove verb = "del"
)

// keyOp is an operation on a key and what its client heard. Times are since the beginning of the run, all from one monotonic clock.
type keyOp struct {
	Client    int // a new one after each unknown outcome: that operation may still happen
	Node      int // that was asked
	Key       string
	Verb      verb
	Value     string
	Expected  uint64
	Call, Ret time.Duration
	// Unknown says that it may have happened, now or at any time since.
	Unknown bool
	// Code is that of a refusal: version_mismatch or key_not_found.
	Code       string
	GotValue   string
	GotVersion uint64
}

// keyBook is the history of all keys.
type keyBook struct {
	mu      sync.Mutex
	ops     map[string][]keyOp
	names   []string
	clients int
	values  int
	active  []*activeKey
	made    int
}

// activeKey is a key in use. Keys live shortly: the cost of a check grows with the number of operations that are concurrent, and each unknown
// outcome is concurrent with all that come later.
type activeKey struct {
	name    string
	ops     int
	unknown int
	version uint64 // the newest that anybody has heard of
}

const (
	activeKeys  = 10
	opsPerKey   = 120
	unknownsKey = 8
)

func newKeyBook() *keyBook {
	b := &keyBook{ops: make(map[string][]keyOp)}
	for range activeKeys {
		b.active = append(b.active, b.fresh())
	}
	return b
}

func (b *keyBook) fresh() *activeKey {
	b.made++
	k := &activeKey{name: fmt.Sprintf("nemesis/%d", b.made)}
	b.names = append(b.names, k.name)
	return k
}

// begin draws an operation.
func (b *keyBook) begin(rng *rand.Rand, clientID int) keyOp {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := rng.IntN(len(b.active))
	k := b.active[i]
	if k.ops++; k.ops > opsPerKey || k.unknown >= unknownsKey {
		k = b.fresh()
		k.ops, b.active[i] = 1, k
	}
	op := keyOp{Client: clientID, Key: k.name, Verb: get}
	switch r := rng.IntN(100); {
	case r < 28:
		op.Verb = put
	case r < 52:
		op.Verb, op.Expected = cas, k.version
		if rng.IntN(8) == 0 {
			op.Expected = uint64(rng.IntN(int(k.version) + 2))
		}
	case r < 58:
		op.Verb = remove
	}
	if op.Verb == put || op.Verb == cas {
		b.values++
		op.Value = fmt.Sprintf("v%d", b.values)
	}
	return op
}

// end takes what became of an operation in, and returns the number under which its client goes on.
func (b *keyBook) end(op keyOp, happened certainty) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := op.Client
	if happened == perhaps {
		b.clients++
		next = b.clients
	}
	if happened == never || happened == perhaps && op.Verb == get {
		return next // a read without an answer says nothing
	}
	op.Unknown = happened == perhaps
	b.ops[op.Key] = append(b.ops[op.Key], op)
	for _, k := range b.active {
		if k.name != op.Key {
			continue
		}
		if op.Unknown {
			k.unknown++
		}
		if op.Verb == remove && op.Code == "" { // to write it again one expects that it does not exist
			k.version = 0
		} else {
			k.version = max(k.version, op.GotVersion)
		}
	}
	return next
}

func (b *keyBook) newClient() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clients++
	return b.clients
}

// certainty is what a client knows about its operation.
type certainty int

const (
	done    certainty = iota // answered
	perhaps                  // it may have happened
	never                    // it has not, and will not
)

// settles tells what an error says about an operation.
func settles(err error) (certainty, string) {
	e, ok := errors.AsType[*client.Error](err)
	switch {
	case err == nil:
		return done, ""
	case !ok:
		return perhaps, ""
	case e.Status == http.StatusTooManyRequests || e.Status == http.StatusServiceUnavailable:
		// The node promises that nothing has begun; a client counts on it, and so does the check.
		return never, e.Code
	case e.Status >= 500:
		return perhaps, e.Code
	}
	return done, e.Code
}

const (
	keyspace   = "default"
	keyPatient = 2 * time.Second
)

// act carries an operation out at a node.
func act(ctx context.Context, c *client.Client, op *keyOp, now func() time.Duration) certainty {
	ctx, cancel := context.WithTimeout(ctx, keyPatient)
	defer cancel()
	var w *client.Written
	var err error
	op.Call = now()
	switch op.Verb {
	case get:
		var value []byte
		value, op.GotVersion, err = c.Get(ctx, keyspace, op.Key)
		op.GotValue = string(value)
	case put:
		w, err = c.Put(ctx, keyspace, op.Key, []byte(op.Value))
	case cas:
		w, err = c.CompareAndSet(ctx, keyspace, op.Key, []byte(op.Value), op.Expected)
	case remove:
		w, err = c.Delete(ctx, keyspace, op.Key)
	}
	op.Ret = now()
	if err == nil && w != nil {
		op.GotVersion = w.Version
	}
	var happened certainty
	happened, op.Code = settles(err)
	return happened
}

// useKeys works on keys through all nodes until ctx ends.
func useKeys(ctx context.Context, b *keyBook, nodes []*client.Client, seed uint64, pause time.Duration, now func() time.Duration) {
	rng := rand.New(rand.NewPCG(seed, 2))
	id := b.newClient()
	for ctx.Err() == nil {
		op := b.begin(rng, id)
		n := rng.IntN(len(nodes))
		op.Node = n + 1
		// An operation is finished even when the run is over: what was sent has to be accounted for.
		id = b.end(op, act(context.WithoutCancel(ctx), nodes[n], &op, now))
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(rng.ExpFloat64() * float64(pause))):
		}
	}
}

// register is the state of a key.
type register struct {
	value   string
	version uint64
	exists  bool
}

// registerModel says what operations on a key may answer. An unknown outcome fits whether it happened or not: porcupine may put it anywhere
// after its call, also behind everything that anybody saw.
var registerModel = porcupine.Model{
	Init: func() any { return register{} },
	Step: func(state, input, _ any) (bool, any) {
		s, op := state.(register), input.(*keyOp)
		next := s
		fits := true // whether the operation changes the state
		refusal := ""
		switch op.Verb {
		case get:
			if !s.exists {
				return op.Code == "key_not_found", s
			}
			return op.Code == "" && op.GotValue == s.value && op.GotVersion == s.version, s
		case put:
			next = register{op.Value, s.version + 1, true}
		case cas:
			fits = s.exists && op.Expected == s.version || !s.exists && op.Expected == 0
			next, refusal = register{op.Value, s.version + 1, true}, "version_mismatch"
		case remove:
			fits = s.exists
			next, refusal = register{version: s.version + 1}, "key_not_found"
		}
		switch {
		case fits && op.Unknown:
			return true, next
		case fits:
			return op.Code == "" && op.GotVersion == next.version, next
		}
		return op.Unknown || op.Code == refusal, s
	},
	Hash: func(state any) uint64 {
		s := state.(register)
		h := s.version*0x9e3779b97f4a7c15 + 1
		for _, c := range []byte(s.value) {
			h = (h ^ uint64(c)) * 0x100000001b3
		}
		return h
	},
	DescribeOperation: func(input, _ any) string { return input.(*keyOp).String() },
	DescribeState: func(state any) string {
		s := state.(register)
		if !s.exists {
			return fmt.Sprintf("nothing, after %d writes", s.version)
		}
		return fmt.Sprintf("%s, version %d", s.value, s.version)
	},
}

func (o *keyOp) String() string {
	s := fmt.Sprintf("node %d: %s", o.Node, o.Verb)
	switch o.Verb {
	case put:
		s += " " + o.Value
	case cas:
		s += fmt.Sprintf(" %s if %d", o.Value, o.Expected)
	}
	switch {
	case o.Unknown:
		return s + " → ?"
	case o.Code != "":
		return s + " → " + o.Code
	case o.Verb == get:
		return fmt.Sprintf("%s → %s, version %d", s, o.GotValue, o.GotVersion)
	}
	return fmt.Sprintf("%s → version %d", s, o.GotVersion)
}

// forever is when an operation of unknown outcome returns.
const forever = time.Duration(1) << 62

// operations are the history of a key as porcupine takes it. Its picture has a row for each client, so those of this key are numbered anew.
func operations(ops []keyOp) (history []porcupine.Operation) {
	rows := make(map[int]int)
	for i := range ops {
		o := &ops[i]
		if _, ok := rows[o.Client]; !ok {
			rows[o.Client] = len(rows)
		}
		ret := o.Ret
		if o.Unknown {
			ret = forever
		}
		history = append(history, porcupine.Operation{ClientId: rows[o.Client], Input: o, Output: o, Call: int64(o.Call), Return: int64(ret)})
	}
	return history
}
