package pebblestore

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"hanse/internal/store"
)

// replacement writes tables into the directory of incoming files.
type replacement struct {
	store  *Store
	lo, hi []byte
	// last is the key added last, nil before the first.
	last []byte
	// writer writes the last of paths; nil before the first pair and between files.
	writer *sstable.Writer
	paths  []string
	// err is the failure of the disk that ended the replacement early, or errOver after Commit and Abort.
	err error
}

var errOver = errors.New("it is committed or aborted")

func (r *replacement) Add(key, value []byte) error {
	switch {
	case r.err != nil:
		return r.wrap(r.err)
	case bytes.Compare(key, r.lo) < 0 || bytes.Compare(key, r.hi) >= 0:
		return r.wrap(fmt.Errorf("key %q is outside", key))
	case r.last != nil && bytes.Compare(key, r.last) <= 0:
		return r.wrap(fmt.Errorf("key %q does not follow %q", key, r.last))
	case len(key) == 0 || len(key) > store.MaxKeyBytes || len(value) > store.MaxValueBytes:
		return r.wrap(fmt.Errorf("key of %d bytes, value of %d, want 1 to %d and at most %d", len(key), len(value), store.MaxKeyBytes, store.MaxValueBytes))
	}
	if err := r.add(key, value); err != nil {
		r.err = err
		return r.wrap(err)
	}
	r.last = append(r.last[:0], key...)
	return nil
}

func (r *replacement) wrap(err error) error {
	return fmt.Errorf("store %s: replacement of [%q, %q): %w", r.store.dir, r.lo, r.hi, err)
}

func (r *replacement) add(key, value []byte) error {
	if r.writer != nil && r.writer.Raw().EstimatedSize() >= r.store.cfg.IncomingFileBytes {
		if err := r.finishFile(); err != nil {
			return err
		}
	}
	if r.writer == nil {
		if err := r.beginFile(); err != nil {
			return err
		}
	}
	return r.writer.Set(key, value)
}

func (r *replacement) beginFile() error {
	s := r.store
	path := s.fs.PathJoin(s.incoming, fmt.Sprintf("%06d.sst", s.incomingFiles.Add(1)))
	file, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	r.paths = append(r.paths, path)
	r.writer = sstable.NewWriter(objstorageprovider.NewFileWritable(file), s.writerOptions)
	return nil
}

// finishFile completes and syncs the present file.
func (r *replacement) finishFile() error {
	if r.writer == nil {
		return nil
	}
	w := r.writer
	r.writer = nil
	return w.Close()
}

// Commit atomically and durably replaces the span, and makes everything applied before it durable.
func (r *replacement) Commit() error {
	if r.err != nil {
		return r.wrap(r.err)
	}
	if err := r.commit(); err != nil {
		r.Abort()
		if errors.Is(err, store.ErrClosed) {
			return err
		}
		return r.wrap(err)
	}
	// The files have become the store's.
	r.paths, r.err = nil, errOver
	return nil
}

func (r *replacement) commit() error {
	if err := r.finishFile(); err != nil {
		return err
	}
	if err := r.store.use(); err != nil {
		return err
	}
	defer r.store.mu.RUnlock()
	// The new tables may get into the manifest while the log is still behind: then a crash would keep
	// this replacement, and lose batches from before it.
	if err := r.store.syncLog(); err != nil {
		return err
	}
	if err := r.store.excise(r.lo, r.hi, r.paths); err != nil {
		return err
	}
	return r.store.faulted()
}

// Abort discards what was added. What it cannot remove, the next Open does.
func (r *replacement) Abort() {
	if r.writer != nil {
		// A table without pairs or after a failed write closes with an error, which does not matter here.
		_ = r.finishFile()
	}
	for _, path := range r.paths {
		if err := r.store.fs.Remove(path); err != nil {
			r.store.cfg.Log.Warn("a file of an abandoned replacement stays until the next start", "path", path, "err", err)
		}
	}
	r.paths, r.err = nil, errOver
}
