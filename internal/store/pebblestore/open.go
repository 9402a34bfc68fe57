package pebblestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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
// it acknowledged is worse than one that is gone. Damage in the last record of the manifest or the last 32 KiB of the log
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
	if err := s.inspect(); err != nil {
		return err
	}
	if err := s.clearIncoming(); err != nil {
		return err
	}
	opts := s.options(lock)
	db, err := pebble.Open(s.dir, opts)
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
		return s.inspectManifest(desc.ManifestFilename)
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

// inspectManifest refuses a manifest that is damaged before its end. Pebble takes the first record it cannot read for the torn
// last one and goes on with an older list of tables; the tables that only newer records name it deletes.
func (s *Store) inspectManifest(name string) error {
	f, err := s.fs.Open(name, vfs.SequentialReadsOption)
	if err != nil {
		return fmt.Errorf("%w (%w)", ErrDamaged, err)
	}
	defer f.Close()
	content, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if at := unreadable(content); at >= 0 && anyChunk(content[at+1:]) {
		return fmt.Errorf("%w (%s is not readable from byte %d on, and does not end there)", ErrDamaged, name, at)
	}
	return nil
}

// A manifest is a sequence of blocks of 32 KiB, in which chunks follow one another: a checksum of 4 bytes, the length of the payload
// in 2, a type of 1 to 4 in 1, and the payload. The last bytes of a block that cannot hold a chunk's header are zero.
const (
	manifestBlockBytes = 32 << 10
	chunkHeaderBytes   = 7
)

// unreadable returns where the first chunk begins that is not as it was written, or -1.
func unreadable(content []byte) int {
	for at := 0; at < len(content); {
		if left := manifestBlockBytes - at%manifestBlockBytes; left < chunkHeaderBytes {
			at += left
			continue
		}
		n := chunkBytes(content[at:])
		if n == 0 {
			return at
		}
		at += n
	}
	return -1
}

// anyChunk reports whether a sound chunk begins anywhere.
func anyChunk(content []byte) bool {
	for i := range content {
		if chunkBytes(content[i:]) > 0 {
			return true
		}
	}
	return false
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// chunkBytes returns the size of the chunk that p begins with, 0 if it is not sound.
func chunkBytes(p []byte) int {
	if len(p) < chunkHeaderBytes || p[6] < 1 || p[6] > 4 {
		return 0
	}
	end := chunkHeaderBytes + int(binary.LittleEndian.Uint16(p[4:]))
	if end > len(p) {
		return 0
	}
	// LevelDB's mask, for checksums of data that hold checksums.
	sum := crc32.Checksum(p[6:end], castagnoli)
	if binary.LittleEndian.Uint32(p) != (sum>>15|sum<<17)+0xa282ead8 {
		return 0
	}
	return end
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
