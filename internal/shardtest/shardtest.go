// Package shardtest runs the machine of a shard without replicas: the test plays the callers, the clock and the crashes.
//
// What a shard has to keep, whatever its service, is that what was written back and the log after it are as good as the whole log. Scripts
// and Replay look at that from outside.
package shardtest

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/datadriven"
	"pgregory.net/rapid"

	"hanse/internal/hlc"
	"hanse/internal/shard"
	"hanse/internal/store/memstore"
)

// Machine is a shard's machine over a store in memory.
type Machine struct {
	shard.Machine
	// T is the test that runs now.
	T testing.TB
	// Index is that of the last entry that Enter made.
	Index uint64

	build func(*shard.State) shard.Logic
	store *memstore.Store
}

// New opens an empty shard.
func New(t testing.TB, build func(*shard.State) shard.Logic) *Machine {
	m := &Machine{T: t, build: build, store: memstore.NewDisk().Open()}
	m.Crash()
	return m
}

// Crash opens the shard anew from what has been written back.
func (m *Machine) Crash() {
	m.T.Helper()
	var err error
	if m.Machine, err = shard.Open(m.store, []byte("s/"), m.build); err != nil {
		m.T.Fatal(err)
	}
}

// WriteBack flushes the state.
func (m *Machine) WriteBack() {
	m.T.Helper()
	b := m.store.NewBatch()
	m.Flush(b)
	if err := m.store.Apply(b, true); err != nil {
		m.T.Fatal(err)
	}
}

// Restart writes the state back and opens the shard anew, which has to be in the same state then.
func (m *Machine) Restart() {
	m.T.Helper()
	before := m.Hash()
	m.WriteBack()
	m.Crash()
	if after := m.Hash(); after != before {
		m.T.Fatalf("hash %x after the restart, %x before", after, before)
	}
}

// Enter applies the next entry, of the time now in milliseconds.
func (m *Machine) Enter(now int64, commands ...shard.Command) shard.Applied {
	m.Index++
	return m.Apply(shard.Entry{Index: m.Index, Time: hlc.FromMillis(now), Commands: commands})
}

// Desk is a machine with the words of a script.
type Desk interface {
	shard.Machine
	// For says which test runs now.
	For(testing.TB)
	Restart()
	// Do carries out a command of a script and shows what comes of it.
	Do(*datadriven.TestData) string
}

// For implements [Desk].
func (m *Machine) For(t testing.TB) { m.T = t }

// Scripts runs each script in a directory twice: on a desk that stays, and on one that is written back and opened anew after each command.
// Both must say the same and be in the same state.
func Scripts(t *testing.T, dir string, newDesk func(testing.TB) Desk) {
	datadriven.Walk(t, dir, func(t *testing.T, path string) {
		stays, restarts := newDesk(t), newDesk(t)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			stays.For(t)
			restarts.For(t)
			out := stays.Do(d)
			restarts.Restart()
			if again := restarts.Do(d); again != out {
				t.Errorf("%s: %s after a restart says\n%s\nand without\n%s", d.Pos, d.Cmd, again, out)
			}
			if a, b := stays.Hash(), restarts.Hash(); a != b {
				t.Errorf("%s: %s leads to another state after a restart", d.Pos, d.Cmd)
			}
			return out
		})
	})
}

// Replay has two machines apply the entries that next makes. One never stops; the other is written back now and then and crashes in between,
// so that it starts from what was written and sees the later entries again. It must give the same answers and messages, and be in the same
// state. Check sees what came of each entry.
func Replay(t *rapid.T, whole, crashes *Machine, next func() shard.Entry, check func(shard.Applied)) {
	var log []shard.Entry
	written := 0 // entries that crashes has written back
	for range rapid.IntRange(10, 80).Draw(t, "entries") {
		e := next()
		e.Index = uint64(len(log)) + 1
		log = append(log, e)
		a := whole.Apply(e)
		if b := crashes.Apply(e); show(a) != show(b) {
			t.Fatalf("entry %d gives\n%s\nand after a crash\n%s", e.Index, show(a), show(b))
		}
		switch rapid.IntRange(0, 7).Draw(t, "then") {
		case 0:
			crashes.WriteBack()
			written = len(log)
		case 1:
			crashes.Crash()
			for _, e := range log[written:] {
				crashes.Apply(e)
			}
		}
		if a, b := whole.Hash(), crashes.Hash(); a != b {
			t.Fatalf("after entry %d the states differ", e.Index)
		}
		check(a)
	}
}

// show makes what an entry brought about comparable.
func show(a shard.Applied) string {
	text := fmt.Sprint(a.Results, a.Settled, a.Finished)
	for _, m := range a.Emitted {
		text += "\n" + fmt.Sprint(*m)
	}
	return text
}
