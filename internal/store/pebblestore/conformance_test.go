package pebblestore

import (
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"hanse/internal/store"
	"hanse/internal/store/storetest"
)

// machine is a computer whose disk keeps a random part of what is unsynced when it crashes.
type machine struct {
	fs   *vfs.MemFS
	open *Store
	// volatile says that the process loses what is not synced, and the disk nothing.
	volatile bool
}

// testConfig keeps tests small and lets replacements span files.
func testConfig(fs vfs.FS) Config {
	cfg := DefaultConfig()
	cfg.FS = fs
	cfg.CacheBytes = 8 << 20
	cfg.IncomingFileBytes = 256 << 10
	return cfg
}

func (m *machine) Open() (store.Engine, error) {
	cfg := testConfig(m.fs)
	cfg.Volatile = m.volatile
	s, err := Open("data", cfg)
	if err != nil {
		return nil, err
	}
	m.open = s
	return s, nil
}

func (m *machine) Crash(rng *rand.Rand) {
	lost := vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng}
	if m.volatile {
		lost.UnsyncedDataPercent = 100
	}
	crashed := m.fs.CrashClone(lost)
	// The abandoned engine writes to the old disk only; closing it ends its goroutines.
	_ = m.open.Close()
	m.fs = crashed
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func() storetest.Disk { return &machine{fs: vfs.NewCrashableMem()} })
	t.Run("volatile", func(t *testing.T) {
		storetest.Run(t, func() storetest.Disk { return &machine{fs: vfs.NewCrashableMem(), volatile: true} })
	})
}
