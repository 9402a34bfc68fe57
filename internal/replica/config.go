package replica

import (
	"errors"
	"fmt"
	"time"

	"hanse/internal/transport"
)

// Config adjusts the replicas of one node. Start from [DefaultConfig].
type Config struct {
	// Node is this node's number, from 1.
	Node transport.NodeID
	// Process is a random number drawn once per start. It marks the entries that this process proposed, so that
	// a restarted node never takes an entry of its former life for one that somebody here waits for.
	Process uint64

	// TickInterval is the time between two Raft ticks. Default 50 ms: with ElectionTicks 10 a
	// dead leader is noticed in 0.5 to 1 s.
	TickInterval time.Duration
	// ElectionTicks is the shortest election timeout in ticks; each replica draws between it and twice as
	// many. Default 10.
	ElectionTicks int
	// HeartbeatTicks is the time between heartbeats in ticks. Default 1.
	HeartbeatTicks int

	// MaxEntryBytes closes an entry: the next command goes into another. A larger command has an entry
	// to itself. Default 256 KiB, which a fast disk writes in about the time of a sync.
	MaxEntryBytes int
	// MaxEntryCommands closes an entry too. Default 1024.
	MaxEntryCommands int
	// MaxRoundEntries is how many entries a group may propose between two of its writes. Default 4.
	MaxRoundEntries int
	// Leisure is how long a lazy command waits for another to share its entry with. Default 200 ms: a shard with five entries a second
	// or more has none for lazy commands alone.
	Leisure time.Duration
	// MaxQueuedCommands and MaxQueuedBytes bound the commands of one group that wait to be proposed; more
	// are answered with ErrBusy. Defaults 16384 and 8 MiB.
	MaxQueuedCommands int
	MaxQueuedBytes    int
	// MaxQueuedReads bounds the reads of one group that wait. Default 16384.
	MaxQueuedReads int
	// MaxUncommittedBytes bounds the proposed and not yet committed entries of a group. Default 16 MiB.
	MaxUncommittedBytes uint64
	// MaxMessageBytes bounds the entries of one append message, MaxInflightMessages and MaxInflightBytes what
	// a follower is sent before it answers. Defaults 1 MiB, 128, 8 MiB.
	MaxMessageBytes     uint64
	MaxInflightMessages int
	MaxInflightBytes    uint64
	// MaxRoundBytes is when a write round is closed for further groups. Default 8 MiB.
	MaxRoundBytes int
	// MaxApplyBytes bounds what a group hands to its apply worker ahead of it. Default 4 MiB.
	MaxApplyBytes int

	// FlushInterval is how long changed state stays in memory only. Default 200 ms: a crash replays that much of the log.
	FlushInterval time.Duration
	// FlushBytes flushes a group early. Default 4 MiB.
	FlushBytes int
	// IdleSync is how long flushed state waits for somebody else's sync before it gets its own. Default 1 s.
	IdleSync time.Duration
	// RetainEntries and RetainBytes say how much of the log stays behind the newest entry, whichever is reached first,
	// so that a replica that was away for a moment needs no snapshot. Defaults 4096 and 2 MiB.
	RetainEntries int
	RetainBytes   int
	// TruncateEntries and TruncateBytes are what a truncation has to bring to be worth its tombstone, whichever is
	// reached first. Defaults 100 and 64 KiB: log entries then die in the store's memory.
	TruncateEntries int
	TruncateBytes   int
	// HoldBytes is how far a leader lets the log grow for a live follower that is behind. Default 64 MiB.
	HoldBytes int
	// CacheBytes is how much of each group's log is kept in memory. Default 4 MiB.
	CacheBytes int

	// ApplyWorkers is the number of goroutines that apply; a group always has the same one. Default 2.
	ApplyWorkers int
	// MaxSettling bounds the answers of a group held back until their key settles; more get
	// their first answer at once. Default 65536.
	MaxSettling int

	// SnapshotBytesPerSecond bounds what this node sends in snapshots. Default 16 MiB/s.
	SnapshotBytesPerSecond int
	// SnapshotTimeout ends a snapshot that has not arrived. Default 10 min.
	SnapshotTimeout time.Duration
	// SnapshotPause is the time after a failed snapshot before the next attempt. Default 1 s.
	SnapshotPause time.Duration

	// SlowDisk is how long a write may take before this node gives its leaderships away, DeadDisk how long
	// before it stops. Defaults 1 s and 10 s: heartbeats alone would never notice.
	SlowDisk time.Duration
	DeadDisk time.Duration

	// PreferLeaders makes the replica whose turn it is (shard index modulo voters) the leader, after a start and when it is
	// back and has caught up, so that leaders are spread. Default true.
	PreferLeaders bool
}

// DefaultConfig returns the defaults; Node and Process remain to be set.
func DefaultConfig() Config {
	return Config{
		TickInterval: 50 * time.Millisecond, ElectionTicks: 10, HeartbeatTicks: 1,
		MaxEntryBytes: 256 << 10, MaxEntryCommands: 1024, MaxRoundEntries: 4, Leisure: 200 * time.Millisecond,
		MaxQueuedCommands: 16384, MaxQueuedBytes: 8 << 20, MaxQueuedReads: 16384,
		MaxUncommittedBytes: 16 << 20, MaxMessageBytes: 1 << 20, MaxInflightMessages: 128, MaxInflightBytes: 8 << 20,
		MaxRoundBytes: 8 << 20, MaxApplyBytes: 4 << 20,
		FlushInterval: 200 * time.Millisecond, FlushBytes: 4 << 20, IdleSync: time.Second,
		RetainEntries: 4096, RetainBytes: 2 << 20, TruncateEntries: 100, TruncateBytes: 64 << 10, HoldBytes: 64 << 20, CacheBytes: 4 << 20,
		ApplyWorkers: 2, MaxSettling: 1 << 16,
		SnapshotBytesPerSecond: 16 << 20, SnapshotTimeout: 10 * time.Minute, SnapshotPause: time.Second,
		SlowDisk: time.Second, DeadDisk: 10 * time.Second,
		PreferLeaders: true,
	}
}

// Validate reports all settings that cannot work.
func (c Config) Validate() error {
	var errs []error
	positive := func(name string, v int64) {
		if v <= 0 {
			errs = append(errs, fmt.Errorf("%s is %d, want more than 0", name, v))
		}
	}
	if c.Node == 0 {
		errs = append(errs, errors.New("Node is 0, want the node's number from 1"))
	}
	if c.Process == 0 {
		errs = append(errs, errors.New("Process is 0, want a number drawn at each start"))
	}
	positive("TickInterval", int64(c.TickInterval))
	positive("HeartbeatTicks", int64(c.HeartbeatTicks))
	if c.ElectionTicks <= c.HeartbeatTicks {
		errs = append(errs, fmt.Errorf("ElectionTicks is %d, want more than HeartbeatTicks (%d)", c.ElectionTicks, c.HeartbeatTicks))
	}
	positive("MaxEntryBytes", int64(c.MaxEntryBytes))
	positive("MaxEntryCommands", int64(c.MaxEntryCommands))
	positive("MaxRoundEntries", int64(c.MaxRoundEntries))
	positive("Leisure", int64(c.Leisure))
	positive("MaxQueuedCommands", int64(c.MaxQueuedCommands))
	positive("MaxQueuedBytes", int64(c.MaxQueuedBytes))
	positive("MaxQueuedReads", int64(c.MaxQueuedReads))
	positive("MaxUncommittedBytes", int64(c.MaxUncommittedBytes))
	positive("MaxMessageBytes", int64(c.MaxMessageBytes))
	positive("MaxInflightMessages", int64(c.MaxInflightMessages))
	if c.MaxInflightBytes < c.MaxMessageBytes {
		errs = append(errs, fmt.Errorf("MaxInflightBytes is %d, want at least MaxMessageBytes (%d)", c.MaxInflightBytes, c.MaxMessageBytes))
	}
	positive("MaxRoundBytes", int64(c.MaxRoundBytes))
	positive("MaxApplyBytes", int64(c.MaxApplyBytes))
	positive("FlushInterval", int64(c.FlushInterval))
	positive("FlushBytes", int64(c.FlushBytes))
	positive("IdleSync", int64(c.IdleSync))
	positive("RetainEntries", int64(c.RetainEntries))
	positive("RetainBytes", int64(c.RetainBytes))
	positive("TruncateEntries", int64(c.TruncateEntries))
	positive("TruncateBytes", int64(c.TruncateBytes))
	if c.HoldBytes < c.RetainBytes {
		errs = append(errs, fmt.Errorf("HoldBytes is %d, want at least RetainBytes (%d)", c.HoldBytes, c.RetainBytes))
	}
	positive("CacheBytes", int64(c.CacheBytes))
	positive("ApplyWorkers", int64(c.ApplyWorkers))
	positive("MaxSettling", int64(c.MaxSettling))
	positive("SnapshotBytesPerSecond", int64(c.SnapshotBytesPerSecond))
	positive("SnapshotTimeout", int64(c.SnapshotTimeout))
	positive("SnapshotPause", int64(c.SnapshotPause))
	positive("SlowDisk", int64(c.SlowDisk))
	if c.DeadDisk <= c.SlowDisk {
		errs = append(errs, fmt.Errorf("DeadDisk is %v, want more than SlowDisk (%v)", c.DeadDisk, c.SlowDisk))
	}
	if len(errs) > 0 {
		return fmt.Errorf("replica config: %w", errors.Join(errs...))
	}
	return nil
}
