package pebblestore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
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
// it acknowledged is worse than one that is gone.
func Open(dir string, cfg Config) (*Store, error) {
	s, err := open(dir, cfg)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	return s, nil
}

func open(dir string, cfg Config) (s *Store, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.OnFault == nil {
		cfg.OnFault = exit
	}
	s = &Store{cfg: cfg, dir: dir, fs: cfg.FS}
	// What has been acquired is released in reverse order, by Close or if Open fails.
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
			s = nil
		}
	}()
	if s.fs == nil {
		// With a file system of its own Pebble would watch with a threshold of 5 s.
		var watch io.Closer
		s.fs, watch = vfs.WithDiskHealthChecks(vfs.Default, cfg.SlowSync, nil, s.onSlowOperation)
		s.acquired = append(s.acquired, watch)
	}
	if err := s.fs.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(dir, s.fs)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", ErrLocked, err)
	}
	s.acquired = append(s.acquired, lock)
	if err := s.inspect(); err != nil {
		return nil, err
	}
	if err := s.clearIncoming(); err != nil {
		return nil, err
	}
	opts := s.options(lock)
	s.db, err = pebble.Open(dir, opts)
	if err == nil {
		// A fault on the way would have been reported to OnFault only.
		err = s.faulted()
	}
	if pebble.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	if err != nil {
		return nil, err
	}
	s.writerOptions = opts.MakeWriterOptions(0, s.db.TableFormat())
	return s, nil
}

// inspect refuses directories that Pebble would misread, or describe in its own terms only.
func (s *Store) inspect() error {
	version, err := atomicfs.ReadMarker(s.fs, s.dir, "format-version")
	if err != nil {
		return fmt.Errorf("%w (read the format version: %w)", ErrDamaged, err)
	}
	if version != "" {
		v, err := strconv.ParseUint(version, 10, 64)
		if err != nil {
			return fmt.Errorf("%w (read the format version: %w)", ErrDamaged, err)
		}
		if v > uint64(formatVersion) {
			return fmt.Errorf("%w (format %d, this version knows up to %d)", ErrNewer, v, formatVersion)
		}
	}
	desc, err := pebble.Peek(s.dir, s.fs)
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	if desc.Exists {
		return nil
	}
	// No manifest: the directory is new, or a crash interrupted its creation. But when there are data, Pebble would
	// go on without them, and the replicas would have forgotten their votes.
	names, err := s.fs.List(s.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".log") {
			return fmt.Errorf("%w (it has %s, but no manifest)", ErrDamaged, name)
		}
	}
	return nil
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
	}
	opts.Experimental.ValidateOnIngest = true
	// Open would fill in the rest in a copy, but the writers of tables need it too.
	opts.EnsureDefaults()
	return opts
}

func refuseMerge(key, _ []byte) (pebble.ValueMerger, error) {
	return nil, fmt.Errorf("merge of key %q: the store knows no merges", key)
}
