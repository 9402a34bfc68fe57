package memstore

import (
	"math/rand/v2"
	"testing"

	"hanse/internal/store"
	"hanse/internal/store/storetest"
)

// machine gives the suite a disk whose crashes keep what a seed decides.
type machine struct{ *Disk }

func (m machine) Open() (store.Engine, error) { return m.Disk.Open(), nil }
func (m machine) Crash(rng *rand.Rand)        { m.Disk.Crash(rng.IntN(m.Unsynced() + 1)) }

func TestConformance(t *testing.T) {
	storetest.Run(t, func() storetest.Disk { return machine{NewDisk()} })
}
