package pebblestore

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"hanse/internal/store"
)

// Config says how a [Store] uses memory, disk and processor. [DefaultConfig] suits a node that shares a machine of two cores with two
// others; for a node that has a machine to itself the comments name the figures.
type Config struct {
	// CacheBytes bounds the block cache. Default 64 MiB; a server gives it a tenth of its memory. It is not part
	// of the Go heap when cgo is on, so GOMEMLIMIT does not cover it.
	CacheBytes int64
	// MemTableBytes is the size of a memtable, at least 2 * store.MaxValueBytes: a batch of half a memtable and more is not
	// merged into one but becomes its own. Default 64 MiB: what is written and deleted
	// while it is in the memtable, as truncated log entries are, never costs a write to a table.
	MemTableBytes uint64
	// MemTables bounds the memtables; beyond, writes stall until one is flushed. Default 4: memory is up
	// to MemTables * MemTableBytes.
	MemTables int
	// L0Compaction is twice the number of sublevels of level 0 that start a compaction. Default 12: six flushes at once. Reads visit every sublevel,
	// but a compaction of a store this small rewrites all of it, for a megabyte that is new.
	L0Compaction int
	// L0Stop is the number of sublevels of level 0 at which writes stall. Default 100, far above the 20 or so at which
	// [Metrics] should make a node refuse work: a stall stops every replica at once, heartbeats included.
	L0Stop int
	// Compactions bounds the concurrent compactions. Default 1: on two cores a second one takes Raft's.
	Compactions int
	// BlockBytes is the size of a block in a table. Default 16 KiB, server 32 KiB.
	BlockBytes int
	// MaxOpenFiles bounds the open tables. Default 500; a server raises it to 4000, and its RLIMIT_NOFILE with it.
	MaxOpenFiles int
	// IncomingFileBytes is the size at which the file of a replacement is followed by the next. Default 64 MiB.
	IncomingFileBytes uint64
	// DeleteRangeDelay is how long a memtable with deleted ranges may wait for its flush, which is what gives the space of
	// truncated logs and of replicas that have gone back on an idle node. Default 1 min, 0 is for ever: flushes of little make compactions of much.
	DeleteRangeDelay time.Duration
	// WALDir holds the write-ahead log; empty means with the rest. It never changes for a store.
	WALDir string

	// SlowSync is how long a synced write may take, or any other operation on the disk, before OnSlowSync
	// hears of it. Default 1 s: then a node should give its leaderships away.
	SlowSync time.Duration
	// OnSlowSync, unless nil, is called when a synced write has taken SlowSync and once more each SlowSync while it
	// goes on, with the time it has taken so far; and when another operation on the disk has. It must not block
	// nor use the store.
	OnSlowSync func(elapsed time.Duration)
	// OnFault is called with the first fault, from any goroutine, perhaps one that holds Pebble's locks: it must not use the
	// store, and must not return but end the process. Should it return, the store answers only with the fault and never
	// lets go of the directory, and Pebble may panic or hang where it is. Nil means to write the fault to stderr and exit with status 1.
	OnFault func(err error)

	// FS is the file system. Nil means the operating system's, watched for operations that take SlowSync.
	FS vfs.FS
	// Volatile is for tests: what was not synced is lost when the process is killed, as when a machine loses power.
	Volatile bool
	// Log gets what Pebble has to tell. Nil means nobody.
	Log *slog.Logger
}

// DefaultConfig returns the configuration of a node that shares two cores with two other nodes.
func DefaultConfig() Config {
	return Config{
		CacheBytes:        64 << 20,
		MemTableBytes:     64 << 20,
		MemTables:         4,
		L0Compaction:      12,
		L0Stop:            100,
		Compactions:       1,
		BlockBytes:        16 << 10,
		MaxOpenFiles:      500,
		IncomingFileBytes: 64 << 20,
		DeleteRangeDelay:  time.Minute,
		SlowSync:          time.Second,
	}
}

// Validate reports all problems.
func (c Config) Validate() error {
	var problems []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			problems = append(problems, fmt.Errorf("pebblestore: "+format, args...))
		}
	}
	check(c.CacheBytes >= 1<<20, "CacheBytes is %d, want at least 1 MiB", c.CacheBytes)
	check(c.MemTableBytes >= 2*store.MaxValueBytes && c.MemTableBytes <= 1<<30, "MemTableBytes is %d, want %d to 1 GiB", c.MemTableBytes, 2*store.MaxValueBytes)
	check(c.MemTables >= 2, "MemTables is %d, want at least 2", c.MemTables)
	check(c.L0Compaction >= 1, "L0Compaction is %d, want at least 1", c.L0Compaction)
	check(c.L0Stop > c.L0Compaction, "L0Stop is %d, want more than L0Compaction, %d", c.L0Stop, c.L0Compaction)
	check(c.Compactions >= 1, "Compactions is %d, want at least 1", c.Compactions)
	check(c.BlockBytes >= 1<<10 && c.BlockBytes <= 1<<20, "BlockBytes is %d, want 1 KiB to 1 MiB", c.BlockBytes)
	check(c.MaxOpenFiles >= 100, "MaxOpenFiles is %d, want at least 100", c.MaxOpenFiles)
	check(c.IncomingFileBytes >= 1<<10, "IncomingFileBytes is %d, want at least 1 KiB", c.IncomingFileBytes)
	check(c.DeleteRangeDelay >= 0, "DeleteRangeDelay is %v, want 0 or more", c.DeleteRangeDelay)
	check(c.SlowSync > 0, "SlowSync is %v, want more than 0", c.SlowSync)
	return errors.Join(problems...)
}

// exit is the default of OnFault.
func exit(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
