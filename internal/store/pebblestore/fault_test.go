package pebblestore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// crashed is what a crash left on the disk before its operation number at.
type crashed struct {
	fs      *vfs.MemFS
	at      int
	op      string
	percent int
}

func (c crashed) String() string {
	return fmt.Sprintf("crash before operation %d (%s), %d%% of the unsynced kept", c.at, c.op, c.percent)
}

// crashes returns what crashes before each operation of run leave.
//
// All or nothing of the unsynced is kept. A disk that kept some and lost earlier ones could lose a new manifest's
// name and keep that of the marker that points to it, for Pebble syncs the directory once for both; file systems
// with a journal do not, and Open would refuse the directory.
func crashes(t *testing.T, disk *vfs.MemFS, run func(vfs.FS)) []crashed {
	t.Helper()

	var mu sync.Mutex
	var all []crashed
	n := 0
	rng := rand.New(rand.NewPCG(1, 2))
	run(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 100} {
			fs := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
			all = append(all, crashed{fs, n, fmt.Sprint(op.Kind, " ", op.Path), percent})
		}
		n++
		return nil
	})))
	if n < 10 {
		t.Fatalf("only %d operations", n)
	}
	return all
}

// replaceB replaces the span of b by b=new, b1=new, c is beyond it.
func replaceB(s *Store) error {
	r, err := s.Replace([]byte("b"), []byte("c"))
	if err != nil {
		return err
	}
	defer r.Abort()
	return errors.Join(r.Add([]byte("b"), []byte("new")), r.Add([]byte("b1"), []byte("new")), r.Commit())
}

const (
	beforeReplace = "a=old b=old b2=old c=old"
	afterReplace  = "a=old b=new b1=new c=old"
)

// Where the old content is when the replacement comes makes a difference to Pebble.
var placements = map[string]func(*testing.T, *Store){
	"in the memtable": func(*testing.T, *Store) {},
	"in tables": func(t *testing.T, s *Store) {
		if err := s.db.Flush(); err != nil {
			t.Fatal(err)
		}
	},
}

func TestReplaceIsOldOrNewAfterCrash(t *testing.T) {
	for name, place := range placements {
		t.Run(name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			s := mustOpen(t, "data", testConfig(disk))
			if err := put(s, true, "old", "a", "b", "b2", "c"); err != nil {
				t.Fatal(err)
			}
			place(t, s)
			mustClose(t, s)
			var old, now int
			for _, c := range crashes(t, disk, func(fs vfs.FS) {
				s := mustOpen(t, "data", testConfig(fs))
				if err := replaceB(s); err != nil {
					t.Fatal(err)
				}
				mustClose(t, s)
			}) {
				s, err := Open("data", testConfig(c.fs))
				if err != nil {
					t.Fatalf("%s: %v", c, err)
				}
				switch got := dump(t, s); got {
				case beforeReplace:
					old++
				case afterReplace:
					now++
				default:
					t.Errorf("%s: content is [%s]", c, got)
				}
				if left, err := c.fs.List("data/" + incomingDir); err != nil || len(left) > 0 {
					t.Errorf("%s: %s has %v, %v; want nothing", c, incomingDir, left, err)
				}
				mustClose(t, s)
			}
			if old == 0 || now == 0 {
				t.Errorf("%d crashes left the old, %d the new content; want some of each", old, now)
			}
		})
	}
}

var errInjected = errors.New("injected")

// faults records what OnFault gets.
type faults struct {
	mu  sync.Mutex
	all []error
}

func (f *faults) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, err)
}

func (f *faults) list() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.all)
}

// Whatever operation fails while a span is replaced, it is old or new after a restart, and new if Commit said so.
func TestReplaceIsOldOrNewAfterFailure(t *testing.T) {
	for name, place := range placements {
		t.Run(name, func(t *testing.T) {
			var failed, fatal int
			for k := int32(0); ; k++ {
				disk := vfs.NewCrashableMem()
				var armed atomic.Bool
				var left atomic.Int32
				left.Store(k)
				cfg := testConfig(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
					if armed.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && left.Add(-1) == -1 {
						return errInjected
					}
					return nil
				})))
				ended := make(chan error, 1)
				cfg.OnFault = func(err error) {
					ended <- err
					// A process that has ended does nothing more.
					select {}
				}
				s := mustOpen(t, "data", cfg)
				if err := put(s, true, "old", "a", "b", "b2", "c"); err != nil {
					t.Fatal(err)
				}
				place(t, s)
				armed.Store(true)
				committed := make(chan error, 1)
				go func() { committed <- replaceB(s) }()
				var err error
				select {
				case err = <-committed:
					if err != nil {
						failed++
					}
				case err = <-ended:
					fatal++
				}
				armed.Store(false)
				after := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(uint64(k), 0))})
				reopened, openErr := Open("data", testConfig(after))
				if openErr != nil {
					t.Fatalf("operation %d failed (Commit %v): %v", k, err, openErr)
				}
				got := dump(t, reopened)
				mustClose(t, reopened)
				if got != afterReplace && (err == nil || got != beforeReplace) {
					t.Errorf("operation %d failed (Commit %v): content is [%s]", k, err, got)
				}
				if err != nil && !errors.Is(err, errInjected) {
					t.Errorf("operation %d failed, but Commit says %v", k, err)
				}
				if left.Load() >= 0 {
					// There was no operation k.
					mustClose(t, s)
					break
				}
				if k > 200 {
					t.Fatal("the replacement never ends")
				}
			}
			// How many of each depends on which goroutine of Pebble's writes first; how many in all hardly does.
			if failed == 0 || fatal == 0 || failed+fatal < 6 {
				t.Errorf("%d failures ended the replacement and %d the store, want some of each", failed, fatal)
			}
		})
	}
}

// A write that the disk refuses is reported, is not acknowledged, and nothing is after it.
func TestFailedWriteEndsTheStore(t *testing.T) {
	for _, c := range []struct {
		name string
		// fails says which operation does.
		fails func(errorfs.Op) bool
		// act makes it happen.
		act func(*Store) error
	}{
		{"sync of the log", func(op errorfs.Op) bool {
			return strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo)
		}, func(s *Store) error { return put(s, true, "2", "a") }},
		{"write of the log", func(op errorfs.Op) bool {
			return strings.HasSuffix(op.Path, ".log") && op.Kind == errorfs.OpFileWrite
		}, func(s *Store) error { return put(s, true, "2", "a") }},
		{"sync of an empty batch", func(op errorfs.Op) bool {
			return strings.HasSuffix(op.Path, ".log") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite
		}, func(s *Store) error { return put(s, true, "2") }},
		{"flush of a memtable", func(op errorfs.Op) bool {
			return strings.HasSuffix(op.Path, ".sst") && op.Kind == errorfs.OpCreate
		}, func(s *Store) error {
			done, err := s.db.AsyncFlush()
			for err == nil && s.faulted() == nil {
				select {
				case <-done:
					return errors.New("the flush succeeded")
				default:
					time.Sleep(time.Millisecond)
				}
			}
			return errors.Join(err, s.faulted())
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := vfs.NewCrashableMem()
			var armed atomic.Bool
			var faults faults
			cfg := testConfig(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if armed.Load() && c.fails(op) {
					return errInjected
				}
				return nil
			})))
			cfg.OnFault = faults.add
			s := mustOpen(t, "data", cfg)
			if err := put(s, true, "1", "a"); err != nil {
				t.Fatal(err)
			}
			armed.Store(true)
			if err := c.act(s); !errors.Is(err, errInjected) {
				t.Fatalf("the act that fails: %v, want the injected error", err)
			}
			armed.Store(false)
			// The disk works again; but nobody knows what it lost.
			for what, err := range map[string]error{
				"Apply":        put(s, false, "3", "a"),
				"Apply synced": put(s, true, "3", "a"),
				"Commit":       replaceB(s),
				"Close":        s.Close(),
			} {
				if !errors.Is(err, errInjected) {
					t.Errorf("%s after the fault: %v, want the injected error", what, err)
				}
			}
			if got := faults.list(); len(got) != 1 || !errors.Is(got[0], errInjected) || !strings.Contains(got[0].Error(), "data") {
				t.Errorf("OnFault got %v, want the injected error once, with the directory", got)
			}
			s = mustOpen(t, "data", testConfig(disk.CrashClone(vfs.CrashCloneCfg{})))
			if got := dump(t, s); got != "a=1" {
				t.Errorf("after the restart [%s], want [a=1]", got)
			}
			mustClose(t, s)
		})
	}
}

// Corruption that Open does not see is found by the read, and is a fault.
func TestCorruptTableIsAFault(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s := mustOpen(t, "data", testConfig(disk))
	if err := put(s, true, strings.Repeat("value", 100), "a"); err != nil {
		t.Fatal(err)
	}
	if err := s.db.Flush(); err != nil {
		t.Fatal(err)
	}
	mustClose(t, s)
	names, err := disk.List("data")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			f, err := disk.OpenReadWrite("data/"+name, vfs.WriteCategoryUnspecified)
			if err == nil {
				_, err = f.WriteAt([]byte{0xff}, 20)
			}
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	var faults faults
	cfg := testConfig(disk)
	cfg.OnFault = faults.add
	s, err = Open("data", cfg)
	if err == nil {
		_, err = s.Get([]byte("a"))
	}
	if err == nil {
		t.Error("Get of a corrupt value succeeded")
	}
	if got := faults.list(); len(got) == 0 {
		t.Error("OnFault was not called")
	}
}

// The watch reports a sync while it hangs, and leaves quick ones alone.
func TestSlowSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hang atomic.Int64
		var mu sync.Mutex // one call does not wait for the other
		var heard []time.Duration
		cfg := testConfig(errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if strings.HasSuffix(op.Path, ".log") && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
				time.Sleep(time.Duration(hang.Swap(0)))
			}
			return nil
		})))
		cfg.OnSlowSync = func(elapsed time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, elapsed)
		}
		s := mustOpen(t, "data", cfg)
		for _, c := range []struct {
			hang time.Duration
			want []time.Duration
		}{
			{0, nil},
			{900 * time.Millisecond, nil},
			{3500 * time.Millisecond, []time.Duration{time.Second, 2 * time.Second, 3 * time.Second}},
			{0, nil},
		} {
			heard = nil
			hang.Store(int64(c.hang))
			if err := put(s, true, "1", "a"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if !slices.Equal(heard, c.want) {
				t.Errorf("a sync of %v: OnSlowSync heard %v, want %v", c.hang, heard, c.want)
			}
		}
		m := s.Metrics()
		if m.Syncs != 4 || m.SyncTime != 4400*time.Millisecond || m.SyncSeconds[0.5] != 2 || m.SyncSeconds[1] != 3 || m.SyncSeconds[10] != 4 {
			t.Errorf("metrics: %d syncs in %v, by seconds %v; want 4 in 4.4s, 2 below 0.5s, 3 below 1s, 4 below 10s", m.Syncs, m.SyncTime, m.SyncSeconds)
		}
		mustClose(t, s)
	})
}
