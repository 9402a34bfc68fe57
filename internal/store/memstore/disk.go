package memstore

import (
	"sync"

	"hanse/internal/invariant"
)

// Disk is what survives a crash. It is opened by one [Store] at a time. All methods may be used concurrently.
type Disk struct {
	mu sync.Mutex
	// tree holds the newest version, which readers see.
	tree tree
	// durable is the version that a crash cannot take away, unsynced what was applied since, in order.
	// With no unsynced version, durable is not used: the newest version is durable.
	durable  *node
	unsynced []*node
	// open is the store that uses the disk, nil after a crash or an orderly close.
	open *Store
	// What the next sync, write or read fails with.
	failSync, failWrite, failRead error
}

// NewDisk returns an empty disk.
func NewDisk() *Disk { return &Disk{} }

// Open returns an engine over what is on the disk. The one before it must have been closed, or have died in a [Disk.Crash].
func (d *Disk) Open() *Store {
	d.mu.Lock()
	defer d.mu.Unlock()
	invariant.Check(d.open == nil, "memstore: the disk is opened a second time")
	d.open = &Store{disk: d}
	return d.open
}

// Copy returns another disk with all that is on this one now, synced or not. It costs nothing.
func (d *Disk) Copy() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	root := d.tree.retain() // from here neither disk changes what both have
	return &Disk{tree: tree{root: root, edition: d.tree.edition}}
}

// Unsynced returns how many batches a crash may take away.
func (d *Disk) Unsynced() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.unsynced)
}

// Crash stops the machine: of the unsynced batches the first keep, between 0 and [Disk.Unsynced], turn out to
// have reached the disk, the others are lost. The open store, its iterators' creation and its snapshots answer
// store.ErrClosed from now on; injected faults that have not struck are withdrawn.
func (d *Disk) Crash(keep int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	invariant.Check(keep >= 0 && keep <= len(d.unsynced), "memstore: crash keeps %d of %d unsynced batches", keep, len(d.unsynced))
	if len(d.unsynced) > 0 {
		versions := append([]*node{d.durable}, d.unsynced...)
		d.tree.root = versions[keep]
		d.tree.edition++
	}
	d.durable, d.unsynced, d.open = nil, nil, nil
	d.failSync, d.failWrite, d.failRead = nil, nil, nil
}

// FailNextSync makes the next synced write fail with err. Its data counts as unsynced: a crash may keep or lose it.
func (d *Disk) FailNextSync(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failSync = err
}

// FailNextWrite makes the next write, synced or not, fail with err and leave no trace.
func (d *Disk) FailNextWrite(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failWrite = err
}

// FailNextRead makes the next Get or Iter, of the store or of a snapshot, fail with err.
func (d *Disk) FailNextRead(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failRead = err
}

// write changes the data by edit, as one version. The caller holds mu.
func (d *Disk) write(sync bool, edit func(*tree)) error {
	if err := d.failWrite; err != nil {
		d.failWrite = nil
		return err
	}
	var err error
	if sync {
		err, d.failSync = d.failSync, nil
		sync = err == nil
	}
	if !sync {
		// From here a crash can go back to what is newest now, so it must not change any more.
		if version := d.tree.retain(); len(d.unsynced) == 0 {
			d.durable = version
		}
		edit(&d.tree)
		d.unsynced = append(d.unsynced, d.tree.retain())
		return err
	}
	edit(&d.tree)
	d.durable, d.unsynced = nil, nil
	return nil
}
