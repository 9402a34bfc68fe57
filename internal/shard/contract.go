package shard

import (
	"hanse/internal/hlc"
	"hanse/internal/store"
)

// Kind says who a command is for.
type Kind uint8

// The kinds of commands. Numbers are in the log and never reused.
const (
	// KindLogic carries a command of the service, in its own encoding.
	KindLogic Kind = 1
	// KindReply carries the answer to an outbox message: EncodeReply.
	KindReply Kind = 2
	// KindTick says that time has passed; the machine does what is due at the entry's time.
	KindTick Kind = 3
	// KindStuck reports that an outbox message could not be delivered for long: EncodeStuck.
	KindStuck Kind = 4
)

// Command is one request to change a shard.
type Command struct {
	Kind Kind
	// Tag is the proposer's own number for the command; Apply does not look at it.
	Tag uint64
	// Caller and Key are the idempotency scope and key, Key empty for none. RequestHash tells a retry
	// from another request under the same key.
	Caller, Key string
	RequestHash uint64
	// Payload is the command in the encoding of its kind. It aliases the entry and is not to be kept or changed.
	Payload []byte
}

// Scope is what an idempotency record is kept under: the key of one caller.
func (c *Command) Scope() string { return c.Caller + "\x00" + c.Key }

// Entry is what one Raft entry carries: commands that are applied one after the other at one time.
type Entry struct {
	// Index is the entry's Raft index; it is not encoded.
	Index uint64
	// Time is the proposer's clock. Apply uses the later of it and the latest Time applied before.
	Time hlc.Time
	// Proposer identifies the process that proposed; with a Command's Tag it finds the waiting caller.
	Proposer uint64
	Commands []Command
}

// Result answers a command or a query. A rejection is an answer like any other: replicated, final.
type Result struct {
	// Code is empty for success and otherwise one of the permanent codes of docs/errors.md.
	Code string
	// Field points to the offending part of the request (a JSON pointer), Detail explains; both may be empty.
	Field, Detail string
	// Payload is the answer in the service's encoding.
	Payload []byte
	// Pending, when not empty, names the object whose outcome the caller may wait for: it is final
	// once an Applied lists the key as settled.
	Pending string
	// Replayed says that the command was a retry, answered from the idempotency record.
	Replayed bool
	// Position is the Raft index at which the answer was true.
	Position uint64
}

// OK reports whether the command was accepted.
func (r Result) OK() bool { return r.Code == "" }

// External is the pseudo service of messages that leave the cluster. Its index says where to.
const External Service = 0xff

// PSP is the destination of messages to the payment provider.
var PSP = NewID(External, 1)

// Message is an outbox message: something that must happen because something happened.
type Message struct {
	// Seq numbers the shard's messages, in the order they were emitted.
	Seq uint64
	// To is the shard that takes the message as a command, or a destination of [External].
	To ID
	// Key is the object that the message is about (an order ID); it identifies it in lists and logs.
	Key string
	// Payload is the command (KindLogic) for To.
	Payload []byte
	// Created is the time of the entry that emitted the message.
	Created hlc.Time
	// NotBefore delays delivery until then; zero means at once.
	NotBefore hlc.Time
}

// Applied is what applying one entry brought about. Its slices belong to the receiver.
type Applied struct {
	// Results has one result for each command.
	Results []Result
	// Settled lists the objects that reached an outcome that callers wait for.
	Settled []string
	// Emitted lists the new outbox messages, Finished the numbers of those that are done.
	Emitted  []*Message
	Finished []uint64
	// Published says that the feed has grown.
	Published bool
	// Stuck lists the orders that began to wait for a person, or do not any more.
	Stuck []StuckNote
}

// StuckNote tells whoever watches a shard that an order, or the payment of one, has a step that is stuck, or (Over) none any more. It is no part of the state.
type StuckNote struct {
	Key         string // the order's ID
	Step, Cause string // of the first step, empty when it is over
	Over        bool
}

// Machine is one replica's state machine. It is driven by one goroutine at a time; Apply and Flush mutate, Query and
// View do not. A store fault surfaces as a panic with a [*StoreFault], which stops the node.
type Machine interface {
	// Apply runs the commands of the next entry. Malformed commands are answered with a rejection.
	Apply(e Entry) Applied
	// Query answers a read-only question, at the last applied entry.
	Query(payload []byte) Result
	// View returns the answer for callers that waited for key to settle.
	View(key string) Result
	// Outbox lists the messages that are not finished, by Seq.
	Outbox() []*Message
	// NextDue returns when the machine wants the next KindTick; zero when it waits for nothing.
	NextDue() hlc.Time
	// DirtyBytes estimates what Flush would write.
	DirtyBytes() int
	// Flush adds all changes since the last Flush to b; they count as stored from then on.
	Flush(b store.Batch)
	// Hash digests the whole logical state; equal states have equal hashes whatever was flushed.
	Hash() uint64
}

// Opener creates the machine of a shard from what Flush wrote. The keys that r shows, and that Flush
// writes, begin with prefix, which belongs to the shard alone.
type Opener func(id ID, r store.Reader, prefix []byte) (Machine, error)

// StoreFault is what a machine panics with when its store fails to read: going on would diverge.
type StoreFault struct{ Err error }

func (f *StoreFault) Error() string { return "shard state: " + f.Err.Error() }
func (f *StoreFault) Unwrap() error { return f.Err }
