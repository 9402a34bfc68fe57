package pebblestore

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// fail records the first fault and reports it. It returns only in tests.
func (s *Store) fail(err error) {
	err = fmt.Errorf("store %s: fault: %w", s.dir, err)
	if s.fault.CompareAndSwap(nil, &err) {
		s.cfg.Log.Error("store fault", "err", err)
		s.cfg.OnFault(err)
	}
}

// faulted returns the fault, if there was one.
func (s *Store) faulted() error {
	if err := s.fault.Load(); err != nil {
		return *err
	}
	return nil
}

// logger passes on what Pebble says. Pebble calls Fatalf when a commit or the manifest failed, and expects not to
// come back from it; when it does, it goes on as if nothing had happened.
type logger struct{ store *Store }

func (l logger) Infof(format string, args ...any) {
	// Pebble tells much; formatting it for nobody would cost more than the rest of a flush.
	if l.store.cfg.Log.Enabled(context.Background(), slog.LevelDebug) {
		l.store.cfg.Log.Debug("pebble", "text", fmt.Sprintf(format, args...))
	}
}

func (l logger) Errorf(format string, args ...any) {
	l.store.cfg.Log.Error("pebble", "text", fmt.Sprintf(format, args...))
}

func (l logger) Fatalf(format string, args ...any) {
	l.store.fail(fmt.Errorf(format, args...))
}

func (s *Store) listener() *pebble.EventListener {
	return &pebble.EventListener{
		// A flush or a compaction failed. Pebble tries again for ever; but what made it fail (a full disk, an input/output error,
		// corruption) does not go away, and then memory fills until writes stall.
		BackgroundError: func(err error) { s.fail(fmt.Errorf("background job: %w", err)) },
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			s.fail(fmt.Errorf("corruption in %s: %w", info.Path, info.Details))
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			s.stalled.Store(true)
			s.stalls.Add(1)
			s.cfg.Log.Warn("writes stall", "reason", info.Reason)
		},
		WriteStallEnd: func() {
			s.stalled.Store(false)
			s.cfg.Log.Info("writes go on")
		},
		LowDiskSpace: func(info pebble.LowDiskSpaceInfo) {
			s.cfg.Log.Warn("disk space is low", "available_bytes", info.AvailBytes, "total_bytes", info.TotalBytes)
		},
		PossibleAPIMisuse: func(info pebble.PossibleAPIMisuseInfo) {
			s.cfg.Log.Error("pebble is misused", "text", info.String())
		},
	}
}

// onSlowOperation hears of operations on files other than synced writes, which the watch below sees earlier.
func (s *Store) onSlowOperation(info vfs.DiskSlowInfo) {
	s.cfg.Log.Warn("disk is slow", "operation", info.OpType.String(), "path", info.Path, "took", info.Duration)
	if s.cfg.OnSlowSync != nil {
		s.cfg.OnSlowSync(info.Duration)
	}
}

// syncWatch calls report while a sync takes long. An own timer: Pebble's watch of the file system looks every 2 s only.
type syncWatch struct {
	mu     sync.Mutex
	timer  *time.Timer
	done   bool
	start  time.Time
	every  time.Duration
	report func(time.Duration)
}

func (s *Store) watchSync() *syncWatch {
	w := &syncWatch{start: time.Now(), every: s.cfg.SlowSync, report: s.cfg.OnSlowSync}
	if w.report != nil {
		w.mu.Lock()
		w.timer = time.AfterFunc(w.every, w.fire)
		w.mu.Unlock()
	}
	return w
}

func (w *syncWatch) fire() {
	w.mu.Lock()
	done := w.done
	if !done {
		w.timer.Reset(w.every)
	}
	w.mu.Unlock()
	if !done {
		w.report(time.Since(w.start))
	}
}

// stop ends the watch and returns how long the sync took.
func (w *syncWatch) stop() time.Duration {
	if w.timer != nil {
		w.mu.Lock()
		w.done = true
		w.timer.Stop()
		w.mu.Unlock()
	}
	return time.Since(w.start)
}
