package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
)

const (
	// formatVersion is pinned: an upgrade cannot be taken back, so it has to wait until no node runs the older program.
	formatVersion = pebble.FormatValueSeparation
	// The names are written into every table and the manifest, and never change.
	comparerName = "hanse.bytewise.v1"
	mergerName   = "hanse.none.v1"
	// incomingDir holds the files of replacements that are being written.
	incomingDir = "incoming"
)

// These say why [Open] failed, beside the error that the file system or Pebble gave.
var (
	// ErrLocked says that another process, or this one, has the directory open.
	ErrLocked = errors.New("it is open in another process; stop that one first")
	// ErrNewer says that a newer version of Hanse wrote the directory.
	ErrNewer = errors.New("a newer version of Hanse wrote it; run that version, or start this node anew with an empty directory")
	// ErrDamaged says that the directory's content is not what was written: truncated, changed or incomplete.
	ErrDamaged = errors.New("it is damaged; keep it for analysis, and replace this node: start it with an empty directory and let it rejoin")
)

// Open opens the store in the directory dir, which is made if need be. It starts Pebble's background jobs, which Close
// ends. An error names dir; besides [ErrLocked], [ErrNewer] and [ErrDamaged] it is the configuration's
// or the file system's. A damaged directory is never repaired here, for a replica that has forgotten what
// it acknowledged is worse than one that is gone. Damage in the last record of the manifest, or in what was synced last to the log,
// looks like the torn end that a crash leaves, though, and is cut off like one.
func Open(dir string, cfg Config) (*Store, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnFault == nil {
		cfg.OnFault = exit
	}
	s := &Store{cfg: cfg, dir: dir, fs: cfg.FS}
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, errors.Join(err, s.release()))
	}
	return s, nil
}

// start opens the database. When it fails, the caller has to release what it had acquired.
func (s *Store) start() error {
	if err := s.cfg.Validate(); err != nil {
		return err
	}
	base := s.fs
	if base == nil {
		base = vfs.Default
	}
	if s.cfg.Volatile {
		base = newVolatileFS(base)
	}
	if s.fs != nil {
		s.fs = base
	} else {
		// With a file system of its own Pebble would watch with a threshold of 5 s.
		var watch io.Closer
		s.fs, watch = vfs.WithDiskHealthChecks(base, s.cfg.SlowSync, nil, s.onSlowOperation)
		s.acquired = append(s.acquired, watch)
	}
	s.fs = &logFiles{s.fs, s.fail}
	if err := s.fs.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	lock, err := pebble.LockDirectory(s.dir, s.fs)
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrLocked, err)
	}
	s.acquired = append(s.acquired, lock)
	isNew, err := s.inspect()
	if err != nil {
		return err
	}
	if err := s.clearIncoming(); err != nil {
		return err
	}
	opts := s.options(lock)
	db, err := pebble.Open(s.dir, opts)
	if isNew && err == nil {
		// The first log of a directory is in the oldest format, which does not say how far it has been synced: begin the second.
		if err = db.Close(); err == nil {
			db, err = pebble.Open(s.dir, opts)
		}
	}
	// Pebble marks only some of what it finds wrong as corruption. But what the operating system refuses, apart from
	// files that should be there, has a number.
	if errno := syscall.Errno(0); errors.As(err, &errno) && errno != syscall.ENOENT {
		return err
	}
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	s.db, s.writerOptions = db, opts.MakeWriterOptions(0, db.TableFormat())
	// What went wrong in the background has been reported to OnFault only.
	return s.faulted()
}

// inspect refuses directories that Pebble would misread, or describe in its own terms only, and reports whether there is nothing in it yet.
func (s *Store) inspect() (isNew bool, err error) {
	version, err := atomicfs.ReadMarker(s.fs, s.dir, "format-version")
	if err != nil {
		return false, fmt.Errorf("%w (read the format version: %w)", ErrDamaged, err)
	}
	if version != "" {
		v, err := strconv.ParseUint(version, 10, 64)
		if err != nil {
			return false, fmt.Errorf("%w (read the format version: %w)", ErrDamaged, err)
		}
		if v > uint64(formatVersion) {
			return false, fmt.Errorf("%w (format %d, this version knows up to %d)", ErrNewer, v, formatVersion)
		}
	}
	desc, err := pebble.Peek(s.dir, s.fs)
	if err != nil {
		return false, fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	if desc.Exists {
		return false, errors.Join(s.inspectManifest(desc.ManifestFilename), s.inspectLogs())
	}
	// No manifest: the directory is new, or a crash interrupted its creation. But when there are data, Pebble would
	// go on without them, and the replicas would have forgotten their votes.
	names, err := s.fs.List(s.dir)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".log") {
			return false, fmt.Errorf("%w (it has %s, but no manifest)", ErrDamaged, name)
		}
	}
	return true, nil
}

// clearIncoming removes what replacements left that a crash ended.
func (s *Store) clearIncoming() error {
	s.incoming = s.fs.PathJoin(s.dir, incomingDir)
	if err := s.fs.RemoveAll(s.incoming); err != nil {
		return fmt.Errorf("remove leftovers: %w", err)
	}
	return s.fs.MkdirAll(s.incoming, 0o755)
}

func (s *Store) options(lock *pebble.Lock) *pebble.Options {
	comparer := *pebble.DefaultComparer
	comparer.Name = comparerName
	opts := &pebble.Options{
		FS:                          s.fs,
		Lock:                        lock,
		FormatMajorVersion:          formatVersion,
		Comparer:                    &comparer,
		Merger:                      &pebble.Merger{Name: mergerName, Merge: refuseMerge},
		CacheSize:                   s.cfg.CacheBytes,
		MemTableSize:                s.cfg.MemTableBytes,
		MemTableStopWritesThreshold: s.cfg.MemTables,
		L0CompactionThreshold:       s.cfg.L0Compaction,
		L0StopWritesThreshold:       s.cfg.L0Stop,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, s.cfg.Compactions },
		MaxOpenFiles:                s.cfg.MaxOpenFiles,
		FlushDelayDeleteRange:       s.cfg.DeleteRangeDelay,
		WALDir:                      s.cfg.WALDir,
		Logger:                      logger{s},
		EventListener:               s.listener(),
	}
	for i := range opts.Levels {
		l := &opts.Levels[i]
		l.BlockSize = s.cfg.BlockBytes
		l.IndexBlockSize = 64 << 10
		// Lookups of idempotency keys mostly miss, on every level. Ten bits per key let one in a hundred through.
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.FilterType = pebble.TableFilter
		l.Compression = func() *sstable.CompressionProfile { return sstable.SnappyCompression }
	}
	// What a flush writes is read by a compaction soon after: compressing it would cost more than it saves.
	opts.Levels[0].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	opts.Experimental.ValidateOnIngest = true
	// Open would fill in the rest in a copy, but the writers of tables need it too.
	opts.EnsureDefaults()
	return opts
}

func refuseMerge(key, _ []byte) (pebble.ValueMerger, error) {
	return nil, fmt.Errorf("merge of key %q: the store knows no merges", key)
}
